-- A job that has ended stays ended: the same spec under a new name, owned by the failed job, so that it shows below it and goes with it.
-- It gets no labels and annotations, since Argo CD would take it for one of the application's own by them, and prune it.
local os = require("os")

-- Empty tables are left out: Lua can't say whether they are lists or maps, and for a job they mean the same as nothing.
local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local made = {}
  for key, each in pairs(value) do
    made[key] = copy(each)
  end
  if next(made) == nil then
    return nil
  end
  return made
end

local spec = copy(obj.spec)
spec.suspend = nil

return {
  {
    operation = "create",
    resource = {
      apiVersion = obj.apiVersion,
      kind = obj.kind,
      metadata = {
        name = obj.metadata.name .. "-" .. os.date("!%y%m%d%H%M"),
        namespace = obj.metadata.namespace,
        ownerReferences = {
          { apiVersion = obj.apiVersion, kind = obj.kind, name = obj.metadata.name, uid = obj.metadata.uid },
        },
      },
      spec = spec,
    },
  },
}
