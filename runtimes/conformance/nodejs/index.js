'use strict';
/* The menu of ../README.md for Node. */

const { spawn, spawnSync } = require('child_process');
const fs = require('fs');
const net = require('net');

let count = 0;
const kept = [];
console.log('loaded');

/** Whether `action` was refused; `made` counts what it did before. */
function limited(action) {
  try {
    action();
    return { limited: false };
  } catch {
    return { limited: true };
  }
}

function writable(path) {
  return !limited(() => fs.closeSync(fs.openSync(path, 'w'))).limited;
}

function readable(path) {
  return !limited(() => fs.readFileSync(path)).limited;
}

/** The addresses that accept a connection. */
async function connect(addresses) {
  const attempts = addresses.map((address) => new Promise((done) => {
    const [host, port] = address.split(':');
    const socket = net.connect({ host, port, timeout: 1000 });
    const end = (reached) => { socket.destroy(); done(reached ? [address] : []); };
    socket.on('connect', () => end(true));
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  }));
  return { reached: (await Promise.all(attempts)).flat() };
}

function openFiles(n) {
  const files = [];
  const answer = limited(() => { while (files.length < n) files.push(fs.openSync('/dev/null')); });
  files.forEach(fs.closeSync);
  return answer;
}

function seesServer() {
  const ids = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return ids.some((id) => {
    try {
      return fs.readFileSync(`/proc/${id}/cmdline`, 'utf8').split('\0').includes('--data');
    } catch {
      return false;
    }
  });
}

function fillTmp() {
  const file = fs.openSync('/tmp/full', 'w');
  const block = Buffer.alloc(1 << 20, 'x');
  let mib = 0;
  const answer = limited(() => { for (; mib < 1024; mib++) fs.writeSync(file, block); });
  fs.closeSync(file);
  fs.unlinkSync('/tmp/full');
  return { ...answer, mib };
}

function forkBomb() {
  for (let made = 0; made < 5000; made++) {
    const child = spawnSync('sh', ['-c', 'sleep 600 & sleep 600 & sleep 600 & true'], { stdio: 'ignore' });
    if (child.error || child.status !== 0) return { limited: true };
  }
  return { limited: false };
}

function isolation(paths = []) {
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  const field = (name) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)[1];
  return {
    uid: process.getuid(),
    caps: field('CapEff').replace(/^0+|0+$/g, '') || 'none',
    noNewPrivs: field('NoNewPrivs'),
    dockerSocket: !limited(() => fs.accessSync('/var/run/docker.sock', 6)).limited,
    writesCode: writable('/var/user/new'),
    writesRoot: writable('/new') || writable('/etc/new') || writable('/usr/new'),
    writesRun: writable('/run/hanshu/new'),
    readsShadow: readable('/etc/shadow'),
    readsInit: readable('/proc/1/environ'),
    seesServer: seesServer(),
    reads: paths.filter((path) => !limited(() => fs.accessSync(path, 4)).limited),
    sockets: fs.readdirSync('/run/hanshu').filter((name) => name.endsWith('.sock')),
    secrets: Object.keys(process.env).filter((name) => name.startsWith('HANSHU_')).sort(),
  };
}

const menu = {
  echo: (e) => e.value,
  raise: () => { null.at(0); },
  exit: () => process.exit(3),
  kill: () => { process.kill(process.pid, 'SIGKILL'); for (;;); },
  segfault: () => { process.kill(process.pid, 'SIGSEGV'); for (;;); },
  spin: () => { for (;;); },
  sleep: (e) => new Promise((done) => setTimeout(done, e.s * 1000)),
  children: (e) => {
    const child = spawn('setsid', ['sh', '-c', 'sleep 600 & echo child $!; wait'], { stdio: 'inherit' });
    child.unref();
    return new Promise((done) => setTimeout(done, e.s * 1000));
  },
  allocate: (e) => { for (let n = 0; n < e.mb; n++) kept.push(Buffer.alloc(1 << 20, 'x')); },
  growHeap: () => { for (;;) kept.push(new Array(1000).fill(Math.random())); },
  forkBomb,
  fillTmp,
  openFiles: (e) => openFiles(e.n),
  connect: (e) => connect(e.to),
  print: (e) => { console.log(e.text); },
  printMuch: (e) => {
    console.log('first line');
    const block = `${'y'.repeat(99)}\n`.repeat(10486);
    for (let n = 0; n < e.mb; n++) process.stdout.write(block);
    console.log('last line');
  },
  printInvalid: () => { process.stdout.write(Buffer.from('be\xff\xfefore\n', 'latin1')); },
  printLong: (e) => { console.log('z'.repeat(e.n)); },
  bothStreams: (e) => {
    for (let n = 0; n < e.n; n++) { console.log(`out ${n}`); console.error(`err ${n}`); }
  },
  // Not plain: the answer of a plain one waits for its timers, as on SCF.
  late: async (e) => { setTimeout(() => console.log('late line'), e.ms); },
  unserialisable: () => 1n,
  rejected: () => Promise.reject(new Error('rejected')),
  callbackError: (e, context, callback) => { callback('oops'); },
  unhandled: () => new Promise(() => { setTimeout(() => Promise.reject(new Error('unhandled')), 5); }),
  fill: (e) => 'x'.repeat(e.n - 2),
  env: (e) => (process.env[e.name] === undefined ? null : process.env[e.name]),
  cwd: () => process.cwd(),
  read: (e) => fs.readFileSync(e.path, 'utf8'),
  write: (e) => { fs.writeFileSync(e.path, e.text); },
  isolation: (e) => isolation(e.paths),
  count: () => ++count,
  context: (e, context) => context,
};

exports.main_handler = (event, context, callback) => {
  const known = event !== null && typeof event === 'object' && Object.hasOwn(menu, event.do);
  return known ? menu[event.do](event, context, callback) : event;
};
