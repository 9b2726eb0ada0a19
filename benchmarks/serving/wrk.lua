-- What wrk sends, and how it checks each answer. Arguments: a folder with `questions.lua`.
-- A thread with one connection takes the images in turn; a thread with several keeps to one image, so that it
-- is always known which image a response belongs to.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  requests, patterns = {}, {}
  for position, question in ipairs(dofile(arguments[1] .. "/questions.lua")) do
    local file = assert(io.open(arguments[1] .. "/" .. question.file, "rb"))
    requests[position] = file:read("*a")
    file:close()
    patterns[position] = question.pattern
  end
  takes_turns = arguments[2] == "1"
  current = number % #requests + 1
  right, wrong, refused, failed = 0, 0, 0, 0
end

function request()
  if takes_turns then
    current = current % #requests + 1
  end
  return requests[current]
end

function response(status, headers, body)
  if status == 200 then
    if body:find(patterns[current]) then
      right = right + 1
    else
      wrong = wrong + 1
    end
  elseif status == 503 then
    refused = refused + 1
  else
    failed = failed + 1
  end
end

function done(summary, latency, requests)
  local sums = { right = 0, wrong = 0, refused = 0, failed = 0 }
  for _, thread in ipairs(threads) do
    for name, sum in pairs(sums) do
      sums[name] = sum + thread:get(name)
    end
  end
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"seconds": %.6f, "right": %d, "wrong": %d, "refused": %d, "failed": %d, "p50_s": %.6f, "p99_s": %.6f}\n',
    summary.duration / 1e6, sums.right, sums.wrong, sums.refused,
    sums.failed + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6
  ))
end
