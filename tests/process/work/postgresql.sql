-- SPDX-License-Identifier: MIT
-- What pgbench left behind, and work of our own: sorts, joins, aggregates, JSON.
select count(*), sum(abalance), min(aid), max(aid) from pgbench_accounts;
select sum(bbalance) from pgbench_branches;
select sum(tbalance), count(*) from pgbench_tellers;
select count(*), sum(delta) from pgbench_history;
select md5(string_agg(aid || ':' || abalance, ',' order by abalance, aid)) from pgbench_accounts where aid % 7 = 0;
create table wide as select i, md5(i::text) as m, repeat(md5((i * 3)::text), i % 9) as t from generate_series(1, 60000) i;
create index on wide(m);
analyze wide;
select substr(m, 1, 2) as head, count(*), sum(length(t)) from wide group by 1 order by 1;
select count(*) from wide a join wide b on substr(a.m, 1, 6) = substr(b.m, 3, 6);
select md5(json_agg(w order by m)::text) from (select * from wide where i % 5 = 0) w;
select md5(string_agg(t, '' order by m desc)) from wide;
