-- What wrk sends: the raw requests of a file, one after the other and around again. What it found goes out as JSON.
--
--     wrk -t1 -c32 -d1s -s benches/call.lua http://HOST:PORT -- FILE
--
-- The file holds requests one behind the other, each after a line with the number of its bytes. A single one is
-- handed over once, before the clock starts; wrk then spends nothing on it.

local requests, turn = {}, 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   for size in function() return file:read("*n", "*l") end do
      requests[#requests + 1] = file:read(size)
   end
   file:close()
   if #requests == 1 then
      wrk.format = function() return requests[1] end
   else
      request = function()
         turn = turn % #requests + 1
         return requests[turn]
      end
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"calls":%d,"bytes":%d,"seconds":%.6f,"p50":%d,"p90":%d,"p99":%d,"p999":%d,"max":%d,"mean":%.1f,' ..
      '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
      summary.requests, summary.bytes, summary.duration / 1e6, latency:percentile(50), latency:percentile(90),
      latency:percentile(99), latency:percentile(99.9), latency.max, latency.mean,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
