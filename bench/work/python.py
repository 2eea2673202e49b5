# SPDX-License-Identifier: MIT
# Work for python3: words counted and sorted, JSON there and back, a graph of objects.
import json
import random


class Node:
    def __init__(self, name):
        self.name, self.friends, self.notes = name, [], {}


rng = random.Random(1)
words = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 40))) for _ in range(60_000)]
index = {}
for number, word in enumerate(words):
    index.setdefault(word[:4], []).append((number, word.upper(), float(number)))
text = json.dumps(index, sort_keys=True)
assert json.loads(text).keys() == index.keys()

nodes = [Node(word) for word in words]
for node in nodes:
    node.friends = [rng.choice(nodes) for _ in range(5)]
    node.notes = {friend.name[:8]: len(friend.name) for friend in node.friends}
for _ in range(4):
    joined = sorted(" ".join(friend.name for friend in node.friends) for node in nodes)
    nodes = [node for node in nodes if len(node.notes) > 2 or rng.random() < 0.5]
print(len(text), len(joined), len(nodes))
