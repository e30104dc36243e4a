-- One user's use of one channel: which of the notifications asked for may go out now.
-- `Line.admit` in lines.py says the same; a property test holds the two together.
--
-- KEYS[1]  sorted set of the notifications that count, each with the instant it was counted at
-- ARGV[1]  now; all instants are microseconds since 1970, as whole numbers, which doubles hold
-- ARGV[2]  the instant at which the window begins; what was counted then counts no more
-- ARGV[3]  how many may count at once
-- ARGV[4]  milliseconds after which nobody needs the set any more
-- ARGV[5]  how many pairs of instant and id follow that PostgreSQL knows to be counted;
--          then pairs of id and "1" for what is asked for, "0" for what waits, in the order of ids
--
-- Answers nothing when all that was asked for is admitted. Else the ids and instants that counted
-- before, from which the caller works out who was admitted, and whose turn is when.
local key, now, most = KEYS[1], ARGV[1], tonumber(ARGV[3])
local first = 6 + 2 * tonumber(ARGV[5])

for i = 6, first - 1, 2 do
  redis.call('ZADD', key, 'GT', ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[2])

local used = redis.call('ZCARD', key)
local ahead, refused, admitted = 0, false, {}
for i = first, #ARGV, 2 do
  local id, is_asked = ARGV[i], ARGV[i + 1] == '1'
  local counts = redis.call('ZSCORE', key, id)
  if is_asked and (counts or used + ahead < most) then
    admitted[#admitted + 1] = id
    if not counts then
      used = used + 1
    end
  elseif not counts then
    ahead = ahead + 1
    refused = refused or is_asked
  end
end

local found = refused and redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
for _, id in ipairs(admitted) do
  redis.call('ZADD', key, now, id)
end
redis.call('PEXPIRE', key, ARGV[4])
return found
