// The ceiling's Node.js worker: see worker.py beside it for the frame.
'use strict';
const net = require('net');

const line = net.connect(process.argv[2], () => line.write(Buffer.alloc(12)));
const handler = async (event) => event;
let parts = [];
let have = 0;

// Answers the frame that starts `frame`, and gives what follows it.
async function answer(frame, length) {
  const event = JSON.parse(frame.toString('utf8', 12, 12 + length));
  const text = JSON.stringify(await handler(event));
  const bytes = Buffer.byteLength(text);
  const out = Buffer.allocUnsafe(12 + bytes);
  out.writeUInt32LE(bytes, 0);
  frame.copy(out, 4, 4, 12);
  out.write(text, 12);
  line.write(out);
}

// One event is on its way at a time, so a frame never shares a read with the next one's start.
line.on('data', (read) => {
  parts.push(read);
  have += read.length;
  if (have < 12) return;
  if (parts[0].length < 12) parts = [Buffer.concat(parts)];
  const length = parts[0].readUInt32LE(0);
  if (have < 12 + length) return;
  const frame = parts.length === 1 ? parts[0] : Buffer.concat(parts);
  parts = [];
  have = 0;
  answer(frame, length);
});
line.on('close', () => process.exit(0));
