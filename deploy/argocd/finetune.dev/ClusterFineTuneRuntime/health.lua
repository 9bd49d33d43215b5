-- A runtime is only read: it is in force as soon as it is there. Whether jobs can use it, they say themselves (RuntimeInvalid).
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "it is being deleted" }
end
return { status = "Healthy", message = "new jobs can name it" }
