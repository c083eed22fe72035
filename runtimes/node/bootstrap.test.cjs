'use strict';
/*
 * Plays the invoker to bootstrap.cjs over a real Unix socket.
 *
 *     node --test bootstrap.test.cjs        (in this folder; Node 18 or later)
 *
 * NODE names another interpreter to test.
 */

const assert = require('assert');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { describe, test } = require('node:test');

const {
  within, sleep, READY, INIT_FAILED, RESULT, FAILED, LAST, BODY_BYTES_MAX, REQUEST_ID,
  CALL_VARIABLES,
} = require('./test_sandbox.cjs');

const ECHO = 'exports.main_handler = async (event) => event;';

describe('results', () => {
  test('every JSON kind comes back', () => within(ECHO, async (box) => {
    assert.strictEqual(box.first.kind, READY);
    const values = [null, true, false, 0, -1, 1.5, 1e300, '', 'text', [], [1, [2]], {},
      { a: { b: [null] } }, '中文 🎈 é', 'nul \0 inside', '"\\\n\t\x1f\u2028', { '': '' }];
    for (const value of values) assert.deepStrictEqual(await box.invoke(value), value);
  }));

  test('lone surrogates survive as escapes', () => within(ECHO, async (box) => {
    for (const text of ['"\\ud800"', '["a\\udfffb"]', '{"\\ud800":1}']) {
      assert.strictEqual((await box.invokeRaw(text)).body.toString(), text);
    }
  }));

  test('six megabytes pass both ways and one byte more is 407', async () => {
    const code = `exports.main_handler = (event) =>
      typeof event === 'string' ? event : (event < 0 ? 'é'.repeat(-event) : 'x'.repeat(event - 2));`;
    await within(code, async (box) => {
      const text = JSON.stringify('x'.repeat(BODY_BYTES_MAX - 2));
      assert((await box.invokeRaw(text)).body.equals(Buffer.from(text)));
      assert.strictEqual((await box.invokeRaw(`${BODY_BYTES_MAX}`)).body.length, BODY_BYTES_MAX);
      for (const length of [BODY_BYTES_MAX + 1, -BODY_BYTES_MAX / 2]) {
        const failure = await box.fail(length);
        assert.strictEqual(failure.statusCode, 407);
        assert.strictEqual(failure.errorMessage, 'body size is too long');
      }
      const half = (BODY_BYTES_MAX - 2) / 2;
      assert.strictEqual((await box.invokeRaw(`${-half}`)).body.length, BODY_BYTES_MAX);
      assert.strictEqual(await box.invoke('still'), 'still');
    });
  });

  test('bodies around the buffer size arrive whole', () => within(ECHO, async (box) => {
    for (let length = 65536 - 60; length < 65536 + 3; length++) {
      const text = `"${'y'.repeat(length - 2)}"`;
      assert.strictEqual((await box.invokeRaw(text)).body.toString(), text);
    }
  }));

  test('a frame in single bytes is one event', () => within(ECHO, async (box) => {
    const write = box.line.write.bind(box.line);
    let frame;
    box.line.write = (bytes) => { frame = bytes; };
    const event = box.startEvent('[7]');
    box.line.setNoDelay && box.line.setNoDelay(true);
    for (const byte of frame) {
      write(Buffer.from([byte]));
      await sleep(1);
    }
    const answer = await box.receive();
    assert.deepStrictEqual([answer.kind, answer.body.toString()], [RESULT, '[7]']);
    assert.deepStrictEqual(answer.event, event);
  }));

  test('a prewarmed process gets environment and folder of its function', async () => {
    const code = `const seen = [{ ...process.env }, process.cwd()];
      exports.main_handler = (e, context) => [...seen, JSON.parse(context.environment).OWN];`;
    const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'late-')));
    fs.writeFileSync(path.join(folder, 'index.js'), code);
    const late = { env: { OWN: 'x', PATH: '/bin' }, cwd: folder, userEnv: { OWN: 'x' } };
    await within('', async (box) => {
      // What it was started with is gone, but for the call endpoint, which is the sandbox's.
      const env = { ...late.env, ...CALL_VARIABLES };
      assert.deepStrictEqual(await box.invoke({}), [env, folder, 'x']);
    }, 'index.main_handler', late);
    fs.rmSync(folder, { recursive: true });
  });

  test('globals are kept', () => within('let n = 0; exports.main_handler = () => ++n;', async (box) => {
    assert.deepStrictEqual([await box.invoke(0), await box.invoke(0)], [1, 2]);
  }));
});

describe('the rules of callbacks', () => {
  const answers = {
    'a synchronous return': ['(e) => 5', 5],
    'undefined is null': ['(e) => {}', null],
    'a promise': ['async () => ({ a: 1 })', { a: 1 }],
    'a thenable': ['() => ({ then: (ok) => setTimeout(ok, 5, 7) })', 7],
    'a callback at once': ['(e, c, cb) => { cb(null, 1); cb(null, 2); return 3; }', 1],
    'a callback later': ['(e, c, cb) => { setTimeout(() => cb(null, "late"), 20); }', 'late'],
    'a callback without data': ['(e, c, cb) => { setImmediate(cb); }', null],
    'a callback that never comes': ['(e, c, cb) => { setTimeout(() => {}, 20); }', null],
    'no callback parameter and work that goes on': ['(e) => { setInterval(() => {}, 1e6); }', null],
    'context.succeed': ['(e, c) => { setTimeout(() => c.succeed("s"), 5); }', 's'],
    'context.done': ['(e, c) => { c.done(null, "d"); }', 'd'],
    'work that goes on after a callback':
      ['(e, c, cb) => { setInterval(() => {}, 1e6); cb(null, "now"); }', 'now'],
  };
  for (const [name, [code, answer]] of Object.entries(answers)) {
    test(name, () => within(`exports.main_handler = ${code};`, async (box) => {
      assert.deepStrictEqual(await box.invoke(null), answer);
      assert.deepStrictEqual(await box.invoke(null), answer);
    }));
  }

  test('a late callback of one event does not answer the next', async () => {
    const code = `exports.main_handler = (event, context, callback) => {
      if (event === 1) { setTimeout(() => callback(null, 'old'), 30); return 'first'; }
      setTimeout(() => callback(null, 'second'), 80);
    };`;
    await within(code, async (box) => {
      assert.deepStrictEqual([await box.invoke(1), await box.invoke(2)], ['first', 'second']);
    });
  });

  test('timers go on between events', async () => {
    const code = 'let n = 0; setInterval(() => n++, 5); exports.main_handler = () => n;';
    await within(code, async (box) => {
      await box.invoke(null);
      await sleep(300);
      assert(await box.invoke(null) > 5);
    });
  });
});

describe('surroundings', () => {
  test('context has every key', async () => {
    const code = `exports.main_handler = (event, context) => [context, Object.keys(context),
      context.getRemainingTimeInMillis(), process.env.TRIGGER_SRC, process.env.HANSHU_SOCKET || null,
      process.cwd()];`;
    await within(code, async (box) => {
      const [context, keys, left, source, socket, cwd] = await box.invoke(null, 1);
      assert.deepStrictEqual(JSON.parse(context.environment), { SCF_NAMESPACE: 'default', A: 'b;c' });
      delete context.environment;
      assert.deepStrictEqual(context, {
        request_id: REQUEST_ID, function_name: 'f', function_version: '$LATEST', namespace: 'default',
        memory_limit_in_mb: 256, time_limit_in_ms: 3000, environ: 'SCF_NAMESPACE=default;A=b;c',
        tencentcloud_region: 'ap-test', tencentcloud_appid: '', tencentcloud_uin: '',
        callbackWaitsForEmptyEventLoop: true,
      });
      for (const key of ['done', 'succeed', 'fail']) assert(keys.includes(key));
      assert(2500 < left && left <= 3000, left);
      assert.deepStrictEqual([source, socket, cwd], ['timer', null, box.code]);
      const sources = [];
      for (const origin of [0, 2, 3]) sources.push((await box.invoke(null, origin))[3]);
      assert.deepStrictEqual(sources, ['direct', 'http', 'redis']);
    }, undefined, { userEnv: { A: 'b;c' }, memoryMb: 256 });
  });

  const modules = {
    'src/index.main': { 'src/index.js': 'exports.main = () => require("../lib").text;',
      'lib.js': 'exports.text = "ok"' },
    'index.main': { 'index.mjs': 'import fs from "fs"; export const main = async () => fs && "ok";' },
    'app.main': { 'app.js': 'export function main() { return "ok"; }',
      'package.json': '{"type":"module"}' },
    'waits.main': { 'waits.mjs': 'await 0; export default { main: () => "ok" };' },
    'common.main': { 'common.cjs': 'exports.main = () => "ok";', 'package.json': '{"type":"module"}' },
    'dir.main': { 'dir/index.js': 'exports.main = () => "ok";' },
    'my.app.main': { 'my.app.js': 'exports.main = () => "ok";' },
    'index.api.main': { 'index.js': 'exports.api = { text: "ok", main() { return this.text; } };' },
    'dep.main': { 'dep.js': 'exports.main = () => require("there");',
      'node_modules/there/index.js': 'module.exports = "ok"' },
  };
  for (const [handler, files] of Object.entries(modules)) {
    test(`handler ${handler} of ${Object.keys(files)} is found`, () => within(files, async (box) => {
      assert.strictEqual(box.first.kind, READY, box.first.body.toString());
      assert.strictEqual(await box.invoke(null), 'ok');
    }, handler));
  }

  test('the socket is not inherited', async () => {
    const code = `const { execSync } = require('child_process');
      exports.main_handler = () => execSync('ls -l /proc/$$/fd | grep -c " [3-9][0-9]* -> socket"; true') + '';`;
    await within(code, async (box) => assert.strictEqual(await box.invoke(null), '0\n'));
  });
});

describe('failures', () => {
  test('a thrown error is 430 with the user\'s lines alone', async () => {
    const code = `function inner() { throw new TypeError('boom'); }
      exports.main_handler = () => { inner(); };`;
    await within(code, async (box) => {
      const failure = await box.fail();
      const stack = failure.stackTrace;
      delete failure.stackTrace;
      assert.deepStrictEqual(failure, {
        statusCode: 430, errorCode: 1, errorMessage: 'TypeError: boom', errorType: 'TypeError', flags: 0,
      });
      assert.match(stack, /^TypeError: boom\n {4}at inner \(.*\/index\.js:1:\d+\)\n {4}at .*index\.js:2:/);
      assert.doesNotMatch(stack, /bootstrap|node:/);
      assert.strictEqual((await box.fail()).statusCode, 430);
    });
  });

  const messages = {
    'a rejected promise': ['async () => { throw new RangeError("r"); }', 'RangeError: r'],
    'a thrown text': ['() => { throw "text"; }', 'text'],
    'a rejection with nothing': ['() => Promise.reject()', 'undefined'],
    'a callback error': ['(e, c, cb) => cb(new Error("cb"))', 'Error: cb'],
    'a late callback error': ['(e, c, cb) => { setTimeout(cb, 5, new Error("cb")); }', 'Error: cb'],
    'a callback error that is no Error':
      ['(e, c, cb) => cb("oops")', 'oops (callback err is not instance of Error)'],
    'a callback error that is an object':
      ['(e, c, cb) => cb({ a: 1 })', '{"a":1} (callback err is not instance of Error)'],
    'context.fail': ['(e, c) => c.fail(new Error("failed"))', 'Error: failed'],
    'an unhandled rejection during the event':
      ['async () => { setTimeout(() => Promise.reject(new Error("u")), 5); await new Promise(() => {}); }',
        'Error: u'],
  };
  for (const [name, [code, message]] of Object.entries(messages)) {
    test(`${name} is 430`, () => within(`exports.main_handler = ${code};`, async (box) => {
      const failure = await box.fail();
      assert.deepStrictEqual(
        [failure.statusCode, failure.errorMessage, failure.flags], [430, message, 0],
      );
      assert.doesNotMatch(failure.stackTrace || '', /bootstrap|node:/);
      assert.strictEqual((await box.fail()).errorMessage, message);
    }));
  }

  test('an exception out of a timer is 430 and the last answer', async () => {
    const code = `exports.main_handler = async () => {
      setTimeout(() => { throw new Error('timer'); }, 5);
      await new Promise(() => {});
    };`;
    await within(code, async (box) => {
      const failure = await box.fail();
      assert.deepStrictEqual(
        [failure.statusCode, failure.errorMessage, failure.flags], [430, 'Error: timer', LAST],
      );
    });
  });

  test('a rejection that the user listens to is the user\'s', async () => {
    const code = `process.on('unhandledRejection', () => console.log('mine'));
      exports.main_handler = async () => {
        Promise.reject(new Error('x'));
        await new Promise((done) => setTimeout(done, 20));
        return 'ok';
      };`;
    await within(code, async (box) => {
      assert.strictEqual(await box.invoke(null), 'ok');
      assert.strictEqual(box.log().toString(), 'mine\n');
    });
  });

  test('what is not JSON is 430 and the message says so', async () => {
    const code = `const circle = {}; circle.circle = circle;
      const values = { circle, bigint: 1n, function: () => 1, symbol: Symbol('s'), ok: 1 };
      exports.main_handler = (event) => values[event];`;
    await within(code, async (box) => {
      for (const name of ['circle', 'bigint', 'function', 'symbol']) {
        const failure = await box.fail(name);
        assert.strictEqual(failure.statusCode, 430);
        assert.match(failure.errorMessage, /returned a value that is not JSON/);
        assert.strictEqual(await box.invoke('ok'), 1);
      }
    });
  });

  test('causes are in the stack', async () => {
    const code = `exports.main_handler = () => {
      throw new Error('outer', { cause: new Error('inner') });
    };`;
    await within(code, async (box) => {
      assert.match((await box.fail()).stackTrace, /Error: outer[^]*\[cause\]: Error: inner/);
    });
  });

  test('a giant message is cut', async () => {
    await within('exports.main_handler = () => { throw new Error("x".repeat(1e7)); };', async (box) => {
      const failure = await box.fail();
      assert(failure.errorMessage.length < 70000 && failure.stackTrace.length < 70000);
    });
  });
});

describe('initialisation', () => {
  async function failureOf(files, handler) {
    let failure;
    await within(files, async (box) => {
      assert.strictEqual(box.first.kind, INIT_FAILED, box.first.body.toString());
      assert.strictEqual(await box.receive(), null);
      failure = JSON.parse(box.first.body);
    }, handler);
    return failure;
  }

  const broken = {
    'a missing package': [{ 'index.js': '\nrequire("no-such-package");' },
      /no-such-package/, /index\.js:2/],
    'a missing package of an ES module': [{ 'index.mjs': 'import "no-such-package";' },
      /no-such-package/, /index\.mjs/],
    'an exception in the file': [{ 'index.js': '\n\nnull.x;' }, /TypeError/, /index\.js:3/],
    'a syntax error': [{ 'index.js': '\nexports.main_handler = (;' }, /SyntaxError/, /index\.js:2/],
    'a syntax error in an ES module': [{ 'index.mjs': '\nexport const x = (;' },
      /SyntaxError/, /index\.mjs:2/],
  };
  for (const [name, [files, message, stack]] of Object.entries(broken)) {
    test(`${name} is 443 with a stack`, async () => {
      const failure = await failureOf(files);
      assert.deepStrictEqual([failure.statusCode, failure.errorCode], [443, 1]);
      assert.match(failure.errorMessage, message);
      assert.match(failure.stackTrace, stack);
      assert.doesNotMatch(failure.stackTrace, /bootstrap\.cjs|node:internal/);
    });
  }

  test('a missing file, function or name is 437', async () => {
    const files = { 'index.js': 'exports.value = 1;', 'src/a.js': '' };
    const handlers = ['other.main', 'index.main', 'index.value', 'main_handler', 'src/b.main', '.x'];
    for (const handler of handlers) {
      const failure = await failureOf(files, handler);
      assert.strictEqual(failure.statusCode, 437, handler);
      assert(failure.errorMessage.includes(handler), failure.errorMessage);
    }
  });
});

describe('output', () => {
  test('both streams keep their order and come before the answer', async () => {
    const code = `exports.main_handler = () => {
      for (let n = 0; n < 50; n++) { process.stdout.write('o' + n + ' '); console.error('e' + n); }
      process.stdout.write(Buffer.from([0xff, 0xfe]));
      console.log('\\ud800 end');
    };`;
    await within(code, async (box) => {
      await box.invoke(null);
      let expected = '';
      for (let n = 0; n < 50; n++) expected += `o${n} e${n}\n`;
      const end = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('\ufffd end\n')]);
      assert.deepStrictEqual(box.log(), Buffer.concat([Buffer.from(expected), end]));
    });
  });

  test('a full pipe that a child made non-blocking loses nothing', async () => {
    const code = `const { spawnSync } = require('child_process');
      const child = 'process.stdout.write(""); process.kill(process.pid, 9)';
      exports.main_handler = () => {
        spawnSync(process.execPath, ['-e', child], { stdio: 'inherit' });
        console.log('x'.repeat(1e6));
        return 'done';
      };`;
    await within(code, async (box) => {
      assert.strictEqual(await box.invoke(null), 'done');
      assert.strictEqual(await box.fifoBytes(1e6 + 1), 1e6 + 1);
    }, undefined, { outIsFifo: true });
  });
});

describe('ends', () => {
  const ends = {
    'process.exit': ['process.stdout.write("last words"); process.exit(3);', 3, 'last words'],
    'kill -9 of itself': ['console.log("x"); process.kill(process.pid, 9); while (1);', 'SIGKILL', 'x\n'],
    'abort': ['process.abort();', 'SIGABRT', null],
  };
  for (const [name, [code, status, log]] of Object.entries(ends)) {
    test(`${name} ends the connection`, async () => {
      await within(`exports.main_handler = async () => { ${code} };`, async (box) => {
        const began = Date.now();
        box.startEvent('1');
        assert.strictEqual(await box.receive(), null);
        assert.strictEqual(await box.exited, status);
        assert(Date.now() - began < 2000);
        if (log !== null) assert.strictEqual(box.log().toString(), log);
      });
    });
  }

  test('the end of the connection is the end of the process', async () => {
    const code = 'setInterval(() => {}, 1000); exports.main_handler = () => 1;';
    await within(code, async (box) => {
      box.line.destroy();
      assert.strictEqual(await box.exited, 0);
    });
  });
});
