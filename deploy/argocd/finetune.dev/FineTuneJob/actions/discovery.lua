-- Suspend and resume a job that has not ended; make a failed one again.
local finished, failed = false, false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  finished = finished or (condition.type == "Finished" and condition.status == "True")
  failed = failed or (condition.type == "Failed" and condition.status == "True")
end
local going = obj.metadata.deletionTimestamp ~= nil
local suspended = obj.spec.suspend == true

return {
  suspend = { disabled = finished or going or suspended, iconClass = "fa fa-fw fa-pause" },
  resume = { disabled = finished or going or not suspended, iconClass = "fa fa-fw fa-play" },
  -- The new name is 11 characters longer, and at most 63.
  retry = { disabled = not failed or going or #obj.metadata.name > 52, iconClass = "fa fa-fw fa-redo", displayName = "Make it again" },
}
