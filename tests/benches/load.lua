-- One cell of the warm table: BENCH_BODY bytes are posted (0: a GET); the sums go out as one JSON line.
local body = tonumber(os.getenv("BENCH_BODY") or "0")
if body > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", body)
    wrk.headers["Content-Type"] = "application/octet-stream"
end

-- BENCH_HOSTS: a host a line; a thread walks them in that order, again and again.
local file = os.getenv("BENCH_HOSTS")
if file then
    local ready, at = {}, 0
    function init()
        for host in io.lines(file) do
            wrk.headers["Host"] = host
            ready[#ready + 1] = wrk.format()
        end
    end
    function request()
        at = at % #ready + 1
        return ready[at]
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\nBENCH {"requests":%d,"duration_us":%d,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration, summary.bytes,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
