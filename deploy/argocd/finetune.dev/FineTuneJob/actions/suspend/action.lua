-- The trainer saves and stops, and its GPUs are given back.
obj.spec.suspend = true
return obj
