// SPDX-License-Identifier: MIT
// Work for node: maps, JSON, compression, buffers outside the JavaScript heap, worker threads.
const crypto = require('crypto'), zlib = require('zlib');
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
function md5(x) { return crypto.createHash('md5').update(x).digest('hex'); }
function work(seed) {
  let state = seed + 1; const next = n => (state = (state * 1103515245 + 12345) % 2147483648) % n;
  const map = new Map();
  for (let i = 0; i < 150000; i++) { map.set('key' + next(30000), { n: i, text: 'x'.repeat(next(200)), list: [i, i + 1] });
    if (i % 3 == 0) map.delete('key' + next(30000)); }
  const text = JSON.stringify([...map.entries()].sort((a, b) => a[0] < b[0] ? -1 : 1));
  const packed = zlib.gzipSync(Buffer.from(text), { level: 5 });
  const buffers = []; for (let i = 0; i < 2000; i++) buffers.push(Buffer.alloc(next(60000), i % 256));
  return [map.size, md5(text), md5(zlib.gunzipSync(packed)), md5(Buffer.concat(buffers))].join(' ');
}
if (!isMainThread) parentPort.postMessage(work(workerData));
else {
  console.log(work(0));
  const results = [];
  for (let i = 1; i <= 3; i++) new Worker(__filename, { workerData: i }).on('message', m => { results[i] = m;
    if (results.filter(Boolean).length == 3) console.log(results.join('\n')); });
}
