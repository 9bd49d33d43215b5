-- Healthy once the model is published, Degraded where somebody has to do something, Suspended while no pod is left, else Progressing.
-- Argo CD opens no string library here: texts are only put together.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "it is being deleted" }
end

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

if next(conditions) == nil then
  return { status = "Progressing", message = "no operator has looked at it yet" }
end
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "its latest change has not been looked at yet" }
end

local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

-- "Reason: message" of a condition.
local function said(kind)
  local condition = conditions[kind] or {}
  return (condition.reason or "Unknown") .. ": " .. (condition.message or "")
end

if holds("Stalled") then
  local hint = status.failure ~= nil and status.failure.hint or nil
  return { status = "Degraded", message = said("Stalled") .. (hint and (" " .. hint) or "") }
end
if holds("Complete") then
  local score = status.summary ~= nil and status.summary.score or nil
  return { status = "Healthy", message = said("Complete") .. (score and (" (" .. score .. ")") or "") }
end
if holds("Suspended") then
  return { status = "Suspended", message = said("Suspended") }
end

local words = {}
local progress = status.progress or {}
if status.currentStage ~= nil then
  table.insert(words, "stage " .. status.currentStage)
end
if progress.percent ~= nil then
  table.insert(words, progress.percent .. " %")
end
if progress.eta ~= nil then
  table.insert(words, progress.eta .. " left")
end
local where = table.concat(words, ", ")
return { status = "Progressing", message = (where ~= "" and (where .. "; ") or "") .. said("Running") }
