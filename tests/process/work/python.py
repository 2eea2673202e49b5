# SPDX-License-Identifier: MIT
# Work for python3: strings, JSON, regular expressions, decimals, threads, processes, SQLite.
import collections, concurrent.futures, decimal, hashlib, json, multiprocessing, random, re, sqlite3, zlib

random.seed(1)
words = ["".join(random.choices("abcdefghij", k=random.randint(1, 60))) for _ in range(60000)]
print(hashlib.md5(" ".join(sorted(words)).encode()).hexdigest())
index = collections.defaultdict(list)
for i, word in enumerate(words):
    index[word[:3]].append((i, word * (i % 5)))
text = json.dumps(index, sort_keys=True)
print(len(text), hashlib.md5(text.encode()).hexdigest(), json.loads(text) == index)
print(zlib.crc32(zlib.decompress(zlib.compress(text.encode(), 6))))
print(len(re.findall(r"(a+b|c[def]+)+", " ".join(words))))
decimal.getcontext().prec = 3000
print(hashlib.md5(str(decimal.Decimal(2).sqrt()).encode()).hexdigest())
trees = [[str(i * j) for j in range(i % 50)] for i in range(20000)]
for i in range(0, 20000, 3):
    trees[i] = None
print(sum(len(t) for t in trees if t))


def work(seed):
    rng = random.Random(seed)
    kept = {}
    for i in range(20000):
        kept[rng.randrange(3000)] = bytes([i % 256]) * rng.randrange(1, 2000)
    return hashlib.md5(b"".join(kept[k] for k in sorted(kept))).hexdigest()


with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(list(pool.map(work, range(6))))
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(pool.map(work, range(6)))
base = sqlite3.connect(":memory:")
base.execute("create table t(a integer primary key, b text)")
base.executemany("insert into t values(?, ?)", enumerate(words))
print(base.execute("select count(*), sum(length(b)), max(b) from t where b like '%ab%'").fetchone())
