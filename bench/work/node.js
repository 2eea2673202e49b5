// SPDX-License-Identifier: MIT
// Work for node: what of its memory comes from malloc is buffers, compression, text, and the
// compiler's own.
const zlib = require('zlib');

let state = 1;
const below = count => (state = (state * 1103515245 + 12345) % 2147483648) % count;
const table = new Map();
for (let i = 0; i < 600000; i++) {
  table.set(below(30000), { buffer: Buffer.alloc(1 + below(6000), i % 251), text: 'x'.repeat(below(100)) });
}
const chunks = [...table.entries()].sort((a, b) => a[0] - b[0]).map(entry => entry[1].buffer);
let bytes = 0;
for (let i = 0; i + 100 < chunks.length; i += 100) {
  const packed = zlib.deflateSync(Buffer.concat(chunks.slice(i, i + 100)), { level: 1 });
  bytes += zlib.inflateSync(packed).length;
}
const text = JSON.stringify([...table.values()].map(entry => entry.text));
console.log(bytes, JSON.parse(text).length);
