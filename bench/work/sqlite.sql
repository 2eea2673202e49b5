-- SPDX-License-Identifier: MIT
-- Work for sqlite3, all in memory: indices, sorts, joins, full text, JSON.
create table item(id integer primary key, name text, price real, tag integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)
  insert into item select i, hex(i * 7919 % 100003) || substr('abcdefghijklmnopqrstuvwxyz', 1 + i % 26), i * 0.37, i % 97 from n;
create index by_name on item(name);
create index by_tag on item(tag, price);
update item set name = name || name where tag between 10 and 40;
delete from item where tag % 4 = 0;
select count(*), sum(price), min(name), max(name) from item;
select tag, count(*), group_concat(substr(name, 1, 2), '') from item where id < 3000 group by tag order by tag;
select a.tag, count(*) from item a join item b on a.name = b.name and a.id <> b.id group by a.tag order by 2 desc, 1 limit 20;
select name from item order by substr(name, 3), id limit 50 offset 2000;
create virtual table words using fts5(body);
insert into words select name || ' ' || tag || ' word' || (id % 50) from item limit 40000;
select count(*) from words where words match 'word7';
select length(json_group_array(json_object('id', id, 'name', name))) from item;
