'use strict';
/*
 * The platform's runtime for Node.js 16 and later: loads the user's handler and answers events.
 *
 * The invoker should start it as
 *
 *     /usr/bin/node --max-old-space-size=<memory_mb> /var/runtime/node/bootstrap.cjs
 *
 * With V8's own limit at the sandbox's, a heap that grows is ended by the sandbox's memory limit
 * (434) and not by V8's abort (439).
 *
 * It speaks ../PROTOCOL.md ("direct") on the socket named by HANSHU_SOCKET. The event loop is the
 * user's: timers and sockets go on between events, until the sandbox is frozen. So the loop reads
 * the socket, into one buffer; blocking reads would save 1.5 of 15 µs and stop everything else.
 */

const fs = require('fs');
const net = require('net');
const path = require('path');
const { Writable } = require('stream');
const { createRequire } = require('module');
const { pathToFileURL } = require('url');
const { uptime } = process; // the first look at `performance` would take 4 ms

// Limits of the protocol, in bytes.
const BODY_BYTES_MAX = 6291456;
const BUFFER_BYTES = 65536;
// A message or a stack is cut at this many characters: a failure must fit into its frame.
const FAILURE_TEXT_MAX = 65536;
const CAUSES_MAX = 5;

const HEADER_BYTES = 16; // body_len u32, kind u8, flags u8, head_len u16, event u64
const INVOKE_HEAD_BYTES = 41; // remaining_ms u32, origin u8, request id
const EVENT_AT = 8;
const ORIGIN_AT = 20;
const REQUEST_ID_AT = 21;
const BODY_AT = HEADER_BYTES + INVOKE_HEAD_BYTES;
const KIND = { INIT: 16, READY: 17, INIT_FAILED: 18, INVOKE: 32, RESULT: 33, FAILED: 34 };
const FLAG_LAST = 1;

const STATUS = { TOO_LONG: 407, RAISED: 430, NO_HANDLER: 437, NOT_LOADED: 443 };
const MODULE_CODES = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE']; // an ES module is required
const TRIGGER_SOURCES = ['direct', 'timer', 'http', 'redis']; // by `origin`
const KEPT = ['HANSHU_ENDPOINT', 'HANSHU_TOKEN']; // set by the shim for the whole sandbox

// --- Failures ------------------------------------------------------------------------------------

/** Reported instead of a result: the protocol's failure object. */
class Failure {
  constructor(status, message, error) {
    // As SCF counts: 1 is the user's code, -1 a limit of the platform.
    this.statusCode = status;
    this.errorCode = status === STATUS.TOO_LONG ? -1 : 1;
    this.errorMessage = cut(message);
    if (error === undefined) return;
    this.errorType = typeOf(error);
    const stack = stackOf(error);
    if (stack) this.stackTrace = cut(stack);
  }
}

/** `text`, or its beginning and its end with a mark between them. */
function cut(text) {
  if (text.length <= FAILURE_TEXT_MAX) return text;
  const half = FAILURE_TEXT_MAX / 2;
  const left = text.length - 2 * half;
  return `${text.slice(0, half)}\n… ${left} characters cut …\n${text.slice(-half)}`;
}

function isError(value) {
  return value instanceof Error || Object.prototype.toString.call(value) === '[object Error]';
}

function typeOf(error) {
  return isError(error) ? String(error.name || 'Error') : typeof error;
}

/** `TypeError: boom`, or the value itself where something else was thrown. */
function describe(error) {
  try {
    if (!isError(error)) return asText(error);
    const name = typeOf(error);
    return error.message ? `${name}: ${error.message}` : name;
  } catch {
    return 'an error whose text could not be made';
  }
}

function asText(value) {
  if (typeof value === 'string') return value;
  try {
    const text = JSON.stringify(value);
    if (text !== undefined) return text;
  } catch { /* a circle, or a BigInt */ }
  return String(value);
}

/** The stack as Node prints it, causes too, without frames of this file or of Node itself. */
function stackOf(error) {
  const parts = [];
  try {
    for (let e = error; isError(e) && parts.length < CAUSES_MAX; e = e.cause) {
      const stack = typeof e.stack === 'string' && e.stack ? e.stack : describe(e);
      parts.push((parts.length ? '[cause]: ' : '') + userFramesOf(stack));
    }
  } catch { /* a getter that throws: what there is so far */ }
  return parts.join('\n');
}

function userFramesOf(stack) {
  const inside = /\(?node:|\(internal\/|<anonymous>\)?$/;
  const own = (line) => line.includes(__filename) || inside.test(line);
  return stack.split('\n').filter((line) => !/^\s+at /.test(line) || !own(line)).join('\n');
}

/** The place of a syntax error in an ES module, which only `node --check` reports. */
function placeOf(error, file) {
  if (!(error instanceof SyntaxError) || error.stack.includes(path.basename(file))) return '';
  const { spawnSync } = require('child_process'); // 3 ms, which few need
  const check = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' });
  return check.stderr ? `${check.stderr.split('\n', 1)[0]}\n` : ''; // file:///var/user/index.mjs:2
}

// --- Standard output and error -------------------------------------------------------------------

/** Writes synchronously: nothing is lost at exit, and both streams keep their order. */
class SyncOutput extends Writable {
  constructor(fd) {
    super({ decodeStrings: true, autoDestroy: false, emitClose: false });
    this.fd = fd;
    this._type = 'pipe';
  }

  _write(chunk, encoding, done) {
    let error = null;
    try {
      writeAll(this.fd, chunk);
    } catch (failed) {
      error = failed.code === 'EPIPE' ? null : failed;
    }
    done(error);
  }

  _destroy(error, done) {
    done(); // as Node's own: the descriptor stays open
  }
}

/** Waits while the pipe is full, since a child that shares it may have made it non-blocking. */
function writeAll(fd, bytes) {
  for (let at = 0; at < bytes.length;) {
    try {
      at += fs.writeSync(fd, bytes, at, bytes.length - at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1 /* ms */);
    }
  }
}

function replaceOutput() {
  for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
    const stream = new SyncOutput(fd);
    const get = () => stream;
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
  }
}

// --- The connection ------------------------------------------------------------------------------

/** The data connection: whole frames in, frames out. Ends the process when the invoker is gone. */
class InvokerConnection {
  /** `onFrame(bytes)`: one frame from byte 0 on; the bytes are good until it returns. */
  constructor(socketPath, onFrame) {
    this.onFrame = onFrame;
    this.start = Buffer.alloc(0); // of a frame whose length is not known yet
    this.frame = null; // one that came in pieces, and how much of it came
    this.have = 0;
    // Used again for each answer: the next event comes only after the last answer was taken.
    this.out = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this.socket = net.connect({
      path: socketPath,
      onread: { buffer, callback: (count, bytes) => this.take(count, bytes) },
    });
    this.socket.on('error', () => process.exit(0));
    this.socket.on('close', () => process.exit(0));
  }

  take(count, bytes) {
    const whole = this.frame === null && this.start.length === 0
      && HEADER_BYTES <= count && frameBytes(bytes) === count;
    if (whole) this.onFrame(bytes);
    else this.gather(bytes.subarray(0, count));
    return true; // go on reading
  }

  gather(bytes) {
    let piece = bytes;
    if (this.frame === null) {
      this.start = Buffer.concat([this.start, piece]);
      if (this.start.length < HEADER_BYTES) return;
      piece = this.start;
      this.start = Buffer.alloc(0);
      this.frame = Buffer.allocUnsafeSlow(frameBytes(piece));
      this.have = 0;
    }
    this.have += piece.copy(this.frame, this.have);
    if (this.have < this.frame.length) return;
    const frame = this.frame;
    this.frame = null;
    this.onFrame(frame);
  }

  /** One frame with `text` as its body; `event` holds the header's 8 bytes. */
  send(kind, flags, event, text) {
    let frame = this.out;
    if (BUFFER_BYTES - HEADER_BYTES < 3 * text.length) {
      frame = Buffer.allocUnsafeSlow(HEADER_BYTES + Buffer.byteLength(text));
    }
    const length = text.length === 0 ? 0 : frame.write(text, HEADER_BYTES, 'utf8');
    frame.writeUInt32LE(length, 0);
    frame[4] = kind;
    frame[5] = flags;
    frame.writeUInt16LE(0, 6);
    event.copy(frame, EVENT_AT);
    this.socket.write(frame.subarray(0, HEADER_BYTES + length));
  }
}

function frameBytes(header) {
  const body = header.readUInt32LE(0);
  if (BODY_BYTES_MAX < body) leave(`a body of ${body} bytes, over the limit of ${BODY_BYTES_MAX}`);
  return HEADER_BYTES + header.readUInt16LE(6) + body;
}

/** Ends the process because the other side broke the protocol. */
function leave(reason) {
  process.stderr.write(`${reason}\n`);
  process.exit(70);
}

// --- The user's code -----------------------------------------------------------------------------

/** Applies the environment of a function that was not known when this process was started. */
function applyEnvironment(start) {
  if (start.env === undefined) return;
  const { env } = process;
  for (const key of Object.keys(env)) if (!KEPT.includes(key)) delete env[key];
  Object.assign(env, start.env);
  process.chdir(start.cwd); // again: the code was mounted over this folder since
}

/**
 * The function that `name` names, bound to what it is exported from: `index.main_handler`,
 * `src/index.main`, `index.api.main`. Throws a `Failure`: 437 when file or function is missing,
 * 443 when the file cannot be loaded.
 */
async function loadHandler(name, folder) {
  const [file, exported] = locate(name, folder);
  let owner;
  try {
    owner = await loadModule(file, folder);
  } catch (error) {
    const failure = new Failure(STATUS.NOT_LOADED, describe(error), error);
    if (isError(error)) failure.stackTrace = placeOf(error, file) + failure.stackTrace;
    throw failure;
  }
  let found = find(owner, exported);
  if (found === undefined && owner && owner.default) found = find(owner.default, exported);
  if (found === undefined) {
    const text = `handler \`${name}\` not found: ${file} exports no function \`${exported}\``;
    throw new Failure(STATUS.NO_HANDLER, text);
  }
  return found;
}

/** [path of the file, name of the export]. The file's own name may hold dots; so may the export. */
function locate(name, folder) {
  const slash = name.lastIndexOf('/');
  const dots = [name.lastIndexOf('.'), name.indexOf('.', slash + 1)];
  for (const dot of dots) {
    if (dot <= slash + 1 || dot === name.length - 1) continue;
    const stem = path.resolve(folder, name.slice(0, dot));
    for (const ending of ['.js', '.cjs', '.mjs', '', '/index.js', '/index.cjs', '/index.mjs']) {
      const stat = fs.statSync(stem + ending, { throwIfNoEntry: false });
      if (stat !== undefined && stat.isFile()) return [stem + ending, name.slice(dot + 1)];
    }
  }
  if (dots[0] <= slash + 1 || dots[0] === name.length - 1) {
    const text = `handler \`${name}\` is not of the form \`file.function\``;
    throw new Failure(STATUS.NO_HANDLER, text);
  }
  const files = `${name.slice(0, dots[0])}.js, .cjs or .mjs`;
  const text = `handler \`${name}\` not found: there is no file ${files} in the code`;
  throw new Failure(STATUS.NO_HANDLER, text);
}

async function loadModule(file, folder) {
  if (!file.endsWith('.mjs')) {
    try {
      return createRequire(path.join(folder, '/'))(file);
    } catch (error) {
      if (!error || !MODULE_CODES.includes(error.code)) throw error;
    }
  }
  return import(pathToFileURL(file).href);
}

function find(owner, exported) {
  let [holder, value] = [undefined, owner];
  for (const part of exported.split('.')) {
    if (value === null || value === undefined) return undefined;
    [holder, value] = [value, value[part]];
  }
  return typeof value === 'function' ? { call: value, of: holder } : undefined;
}

/** The part of `context` that is the same for every event. */
function contextOf(start) {
  const env = process.env;
  const environment = { SCF_NAMESPACE: start.namespace };
  for (const key of ['SECRETID', 'SECRETKEY', 'SESSIONTOKEN'].map((k) => `TENCENTCLOUD_${k}`)) {
    if (env[key] !== undefined) environment[key] = env[key];
  }
  Object.assign(environment, start.userEnv);
  return {
    function_name: start.functionName,
    function_version: start.functionVersion,
    namespace: start.namespace,
    memory_limit_in_mb: start.memoryMb,
    time_limit_in_ms: start.timeoutMs,
    environment: JSON.stringify(environment),
    environ: Object.entries(environment).map(([key, value]) => `${key}=${value}`).join(';'),
    tencentcloud_region: env.TENCENTCLOUD_REGION || '',
    tencentcloud_appid: env.TENCENTCLOUD_APPID || '',
    tencentcloud_uin: env.TENCENTCLOUD_UIN || '',
  };
}

// --- Events --------------------------------------------------------------------------------------

/** Answers one event at a time. What arrives for an event that was answered already is dropped. */
class Runtime {
  constructor(socketPath) {
    this.connection = new InvokerConnection(socketPath, (frame) => this.initialise(frame));
    this.event = Buffer.alloc(8); // of the running event
    this.run = null; // a token of the running event
    this.waits = false; // for a callback, while the event loop has something to do
    this.origin = -1;
  }

  async initialise(frame) {
    if (frame[4] !== KIND.INIT) leave(`frame of kind ${frame[4]} before INIT`);
    const start = JSON.parse(frame.toString('utf8', HEADER_BYTES, frameBytes(frame)));
    this.connection.onFrame = () => leave('a frame before READY');
    applyEnvironment(start);
    try {
      this.handler = await loadHandler(start.handler, process.cwd());
    } catch (error) {
      const isFailure = error instanceof Failure;
      const failure = isFailure ? error : new Failure(STATUS.NOT_LOADED, describe(error), error);
      this.connection.send(KIND.INIT_FAILED, 0, this.event, JSON.stringify(failure));
      this.connection.socket.end(() => process.exit(1));
      return;
    }
    // A handler without a `callback` parameter that returns nothing is done, whatever it started.
    const { call } = this.handler;
    this.mayCallBack = 3 <= call.length || /\.(done|succeed|fail)\b/.test(String(call));
    this.common = contextOf(start);
    this.connection.onFrame = (bytes) => this.invoke(bytes);
    this.connection.send(KIND.READY, 0, this.event, '');
  }

  invoke(frame) {
    const isInvoke = frame[4] === KIND.INVOKE && frame.readUInt16LE(6) === INVOKE_HEAD_BYTES;
    if (!isInvoke || this.run !== null) {
      leave(`frame of kind ${frame[4]} where INVOKE belongs`);
    }
    frame.copy(this.event, 0, EVENT_AT, HEADER_BYTES);
    const origin = frame[ORIGIN_AT];
    if (origin !== this.origin) {
      process.env.TRIGGER_SRC = TRIGGER_SOURCES[origin];
      this.origin = origin;
    }
    const run = {};
    this.run = run;
    let event;
    try {
      event = JSON.parse(frame.toString('utf8', BODY_AT, frameBytes(frame)));
    } catch (error) {
      this.fail(run, `the event could not be read as JSON: ${describe(error)}`);
      return;
    }
    this.call(run, event, this.contextFor(run, frame));
  }

  contextFor(run, frame) {
    const deadline = 1e3 * uptime() + frame.readUInt32LE(HEADER_BYTES);
    return {
      request_id: frame.latin1Slice(REQUEST_ID_AT, BODY_AT),
      ...this.common,
      callbackWaitsForEmptyEventLoop: true, // the answer is sent at once either way, as since 10.15
      getRemainingTimeInMillis: () => Math.max(0, Math.round(deadline - 1e3 * uptime())),
      done: (error, value) => this.settle(run, error, value),
      succeed: (value) => this.settle(run, null, value),
      fail: (error) => this.settle(run, error === undefined || error === null ? 'failed' : error),
    };
  }

  call(run, event, context) {
    const { call, of } = this.handler;
    let result;
    try {
      result = call.call(of, event, context, (error, value) => this.settle(run, error, value));
    } catch (error) {
      this.raise(run, error);
      return;
    }
    if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
      result.then((value) => this.succeed(run, value), (error) => this.raise(run, error));
    } else if (result !== undefined || !this.mayCallBack) {
      this.succeed(run, result);
    } else if (this.run === run) {
      this.waits = true;
      this.connection.socket.unref(); // `beforeExit` then means that nothing can call back
    }
  }

  /** `callback(error, value)`. */
  settle(run, error, value) {
    if (error === null || error === undefined) this.succeed(run, value);
    else if (isError(error)) this.raise(run, error);
    else this.fail(run, `${asText(error)} (callback err is not instance of Error)`);
  }

  succeed(run, value) {
    if (this.run !== run) return;
    let text;
    try {
      text = value === undefined ? 'null' : JSON.stringify(value);
    } catch (error) {
      return this.fail(run, `the function returned a value that is not JSON: ${describe(error)}`);
    }
    if (text === undefined) {
      this.fail(run, `the function returned a value that is not JSON: a ${typeof value}`);
    } else if (BODY_BYTES_MAX < 3 * text.length && BODY_BYTES_MAX < Buffer.byteLength(text)) {
      const failure = new Failure(STATUS.TOO_LONG, 'body size is too long');
      this.answer(KIND.FAILED, 0, JSON.stringify(failure));
    } else {
      this.answer(KIND.RESULT, 0, text);
    }
  }

  raise(run, error, flags = 0) {
    if (this.run !== run) return;
    const failure = new Failure(STATUS.RAISED, describe(error), error);
    this.answer(KIND.FAILED, flags, JSON.stringify(failure));
  }

  fail(run, message) {
    if (this.run !== run) return;
    this.answer(KIND.FAILED, 0, JSON.stringify(new Failure(STATUS.RAISED, message)));
  }

  answer(kind, flags, text) {
    this.run = null;
    if (this.waits) this.connection.socket.ref();
    this.waits = false;
    this.connection.send(kind, flags, this.event, text);
  }

  /** What nobody caught, while an event runs or none does. The user's own listeners come first. */
  watch() {
    process.on('beforeExit', () => { if (this.waits) this.succeed(this.run, undefined); });
    process.on('unhandledRejection', (reason) => {
      if (1 < process.listenerCount('unhandledRejection')) return;
      if (this.run !== null) this.raise(this.run, reason);
      else process.stderr.write(`unhandled rejection: ${stackOf(reason) || describe(reason)}\n`);
    });
    process.on('uncaughtException', (error) => {
      if (1 < process.listenerCount('uncaughtException')) return undefined;
      // The state is unknown now: the answer is this process's last.
      if (this.run !== null) return this.raise(this.run, error, FLAG_LAST);
      process.stderr.write(`uncaught exception: ${stackOf(error) || describe(error)}\n`);
      return process.exit(1);
    });
  }
}

function main() {
  const socketPath = process.env.HANSHU_SOCKET;
  delete process.env.HANSHU_SOCKET;
  replaceOutput();
  new Runtime(socketPath).watch();
}

main();
