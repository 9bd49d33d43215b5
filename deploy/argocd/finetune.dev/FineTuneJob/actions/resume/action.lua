-- It goes on from its newest checkpoint.
obj.spec.suspend = false
return obj
