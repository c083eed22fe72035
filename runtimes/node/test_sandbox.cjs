'use strict';
/* The invoker's side of ../PROTOCOL.md, for the tests of bootstrap.cjs: NODE names the interpreter. */

const assert = require('assert');
const { spawn, spawnSync } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');

const BOOTSTRAP = path.join(__dirname, 'bootstrap.cjs');
const NODE = process.env.NODE || '/usr/bin/node';

const [INIT, READY, INIT_FAILED, INVOKE, RESULT, FAILED] = [16, 17, 18, 32, 33, 34];
const LAST = 1;
const BODY_BYTES_MAX = 6291456;
const REQUEST_ID = '01234567-89ab-cdef-0123-456789abcdef';
const WAIT_MS = 20000;
const CALL_VARIABLES = { HANSHU_ENDPOINT: 'http://127.0.0.1:1', HANSHU_TOKEN: 'a0' };

/** One running bootstrap, its code folder and its connection. */
class Sandbox {
  static async start(files, handler = 'index.main_handler', start = {}) {
    const box = new Sandbox();
    box.root = fs.mkdtempSync(path.join(os.tmpdir(), 'node-'));
    box.code = path.join(box.root, 'code');
    for (const [name, text] of Object.entries(files)) {
      const file = path.join(box.code, name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, text);
    }
    const socketPath = path.join(box.root, 'data.sock');
    const listener = net.createServer();
    await new Promise((done) => listener.listen(socketPath, done));
    const accepted = new Promise((done) => listener.once('connection', done));
    const out = path.join(box.root, 'out');
    if (start.outIsFifo) spawnSync('mkfifo', [out]);
    box.out = fs.openSync(out, start.outIsFifo ? fs.constants.O_RDWR : 'a+');
    if (start.outIsFifo) {
      const copy = fs.openSync(`${out}.copy`, 'a');
      box.reader = spawn('cat', [out], { stdio: ['ignore', copy, 'ignore'] });
      fs.closeSync(copy);
    }
    const env = { PATH: process.env.PATH, TENCENTCLOUD_REGION: 'ap-test', HANSHU_SOCKET: socketPath };
    Object.assign(env, start.userEnv, CALL_VARIABLES);
    const stdio = ['ignore', box.out, box.out];
    box.process = spawn(NODE, [BOOTSTRAP], { cwd: box.code, env, stdio });
    box.exited = new Promise((done) => box.process.on('exit', (code, signal) => done(code ?? signal)));
    box.line = await accepted;
    box.listen();
    listener.close();
    fs.rmSync(socketPath, { force: true });
    const init = {
      adapter: 'direct', cwd: box.code, handler, functionName: 'f', functionVersion: '$LATEST',
      namespace: 'default', memoryMb: 128, timeoutMs: 3000, initTimeoutMs: 65000, userEnv: {}, port: 0,
      ...start,
    };
    box.send(INIT, Buffer.from(JSON.stringify(init)));
    box.first = await box.receive();
    return box;
  }

  listen() {
    let data = [];
    let have = 0;
    this.frames = [];
    this.ended = false;
    this.wake = () => {};
    this.line.on('error', () => {});
    this.line.on('close', () => { this.ended = true; this.wake(); });
    this.line.on('data', (piece) => {
      data.push(piece);
      have += piece.length;
      if (have < 16) return;
      if (data[0].length < 16) data = [Buffer.concat(data)];
      const length = data[0].readUInt32LE(0);
      if (have < 16 + length) return;
      const all = Buffer.concat(data);
      const body = all.subarray(16, 16 + length);
      this.frames.push({ kind: all[4], flags: all[5], event: all.subarray(8, 16), body });
      data = [all.subarray(16 + length)];
      have = data[0].length;
      this.wake();
    });
  }

  send(kind, body, head = Buffer.alloc(0), event = Buffer.alloc(8)) {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(body.length, 0);
    header[4] = kind;
    header.writeUInt16LE(head.length, 6);
    event.copy(header, 8);
    this.line.write(Buffer.concat([header, head, body]));
  }

  /** The next frame, or null when the runtime has hung up. */
  async receive() {
    const deadline = Date.now() + WAIT_MS;
    while (this.frames.length === 0 && !this.ended) {
      assert(Date.now() < deadline, 'no frame in time');
      await new Promise((done) => { this.wake = done; setTimeout(done, 1000).unref(); });
    }
    return this.frames.shift() || null;
  }

  startEvent(body, origin = 0, event = crypto.randomBytes(8)) {
    const head = Buffer.alloc(41);
    head.writeUInt32LE(3000, 0);
    head[4] = origin;
    head.write(REQUEST_ID, 5, 'latin1');
    this.send(INVOKE, Buffer.from(body), head, event);
    return event;
  }

  async invokeRaw(body, origin = 0) {
    const event = this.startEvent(body, origin);
    const frame = await this.receive();
    if (frame === null) assert.fail(`hung up: ${this.log()}`);
    assert.deepStrictEqual(frame.event, event);
    return frame;
  }

  async invoke(event, origin = 0) {
    const frame = await this.invokeRaw(JSON.stringify(event), origin);
    assert.strictEqual(frame.kind, RESULT, frame.body.toString());
    return JSON.parse(frame.body);
  }

  async fail(event = null) {
    const frame = await this.invokeRaw(JSON.stringify(event));
    assert.strictEqual(frame.kind, FAILED, frame.body.toString());
    return { ...JSON.parse(frame.body), flags: frame.flags };
  }

  log() {
    return fs.readFileSync(path.join(this.root, 'out'));
  }

  /** Waits until that many bytes of output came out of the FIFO; their number. */
  async fifoBytes(count) {
    const copy = path.join(this.root, 'out.copy');
    for (let left = WAIT_MS; 0 < left && fs.statSync(copy).size < count; left -= 10) await sleep(10);
    return fs.statSync(copy).size;
  }

  async stop() {
    this.line.destroy();
    this.process.kill('SIGKILL');
    if (this.reader) this.reader.kill('SIGKILL');
    await this.exited;
    fs.closeSync(this.out);
    fs.rmSync(this.root, { recursive: true, force: true });
  }
}

/** Runs `check` on a sandbox whose index.js is `code`. */
async function within(code, check, handler, start) {
  const files = typeof code === 'string' ? { 'index.js': code } : code;
  const box = await Sandbox.start(files, handler, start);
  try {
    await check(box);
  } finally {
    await box.stop();
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

module.exports = {
  Sandbox, within, sleep, READY, INIT_FAILED, RESULT, FAILED, LAST, BODY_BYTES_MAX, REQUEST_ID,
  CALL_VARIABLES,
};
