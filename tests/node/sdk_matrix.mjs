// E2B's own JavaScript SDK 2.51.0, unmodified, against `sandhold serve`: what its types and documentation promise.
// usage: node sdk_matrix.mjs, with E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY set
import { createHash, randomBytes } from 'node:crypto'
import http from 'node:http'
import * as e2b from 'e2b'

const { Sandbox, FileType, FilesystemEventType } = e2b

function check(name, good, detail = '') {
  let shown = detail
  if (!good && typeof detail !== 'string') shown = detail instanceof Error ? detail.stack : JSON.stringify(detail)
  console.log(good ? `ok    ${name}` : `FAIL  ${name}: ${String(shown).replaceAll('\n', ' | ').slice(0, 1000)}`)
}

function equal(name, got, wanted) {
  check(name, JSON.stringify(got) === JSON.stringify(wanted), `got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`)
}

async function raises(name, kind, attempt, ...texts) {
  try {
    await attempt()
    check(name, false, 'nothing was raised')
  } catch (error) {
    check(name, error instanceof kind && texts.every((text) => error.message.includes(text)), error)
  }
}

const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function until(what, seconds = 6) {
  const end = Date.now() + seconds * 1000
  for (;;) {
    const found = await what()
    if (found || Date.now() > end) return found
    await rest(30)
  }
}

const sum = (bytes) => createHash('sha256').update(bytes).digest('hex')

async function files(sandbox) {
  const { files } = sandbox
  const info = await files.write('a/b.txt', 'text ü\n')
  equal('files.write', [info.path, info.name, info.type], ['/home/user/a/b.txt', 'b.txt', FileType.FILE])
  equal('files.read: text', await files.read('a/b.txt'), 'text ü\n')
  const raw = randomBytes(2 << 20)
  await files.write('raw', raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length))
  const bytes = await files.read('raw', { format: 'bytes' })
  check('files.read: bytes', bytes instanceof Uint8Array && sum(bytes) === sum(raw))
  const blob = await files.read('raw', { format: 'blob' })
  equal('files.read: a blob', [blob.size, sum(Buffer.from(await blob.arrayBuffer()))], [raw.length, sum(raw)])
  const hash = createHash('sha256')
  for await (const piece of await files.read('raw', { format: 'stream' })) hash.update(piece)
  equal('files.read: a stream', hash.digest('hex'), sum(raw))
  await files.write('blob', new Blob(['of a ', 'blob']))
  equal('files.write: a blob', await files.read('blob'), 'of a blob')
  let left = 32
  const stream = new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(new Uint8Array(65536).fill(left))
      else controller.close()
    },
  })
  await files.write('streamed', stream)
  equal('files.write: a stream', (await files.getInfo('streamed')).size, 32 * 65536)
  await files.write('packed', 'packed '.repeat(1000), { gzip: true })
  equal('files.write, read: gzip', await files.read('packed', { gzip: true }), 'packed '.repeat(1000))
  await files.write('octets', 'octets', { useOctetStream: true })
  equal('files.write: octet-stream', await files.read('octets'), 'octets')
  const written = await files.writeFiles([{ path: 'm/1', data: 'one' }, { path: 'm/2', data: 'two' }], { metadata: { Kind: 'test' } })
  equal('files.writeFiles, metadata', written.map((one) => [one.path, one.metadata]), [['/home/user/m/1', { kind: 'test' }], ['/home/user/m/2', { kind: 'test' }]])
  equal('files.write: a list', (await files.write([{ path: 'm/3', data: '3' }])).map((one) => one.name), ['3'])
  equal('files.list', (await files.list('m')).map((entry) => [entry.name, entry.type]).sort(), [['1', 'file'], ['2', 'file'], ['3', 'file']])
  await files.write('tree/one/two', '2')
  equal('files.list: depth', (await files.list('tree', { depth: 2 })).map((entry) => entry.path).sort(), ['/home/user/tree/one', '/home/user/tree/one/two'])
  const entry = await files.getInfo('a/b.txt')
  equal('files.getInfo', [entry.size, entry.permissions, entry.owner, entry.group, entry.mode & 0o777], [8, '-rw-r--r--', 'user', 'user', 0o644])
  check('files.getInfo: modifiedTime', entry.modifiedTime instanceof Date && Math.abs(Date.now() - entry.modifiedTime) < 300_000, entry)
  await sandbox.commands.run('ln -s b.txt a/link')
  equal('files.getInfo: symlinkTarget', (await files.getInfo('a/link')).symlinkTarget, '/home/user/a/b.txt')
  equal('files.makeDir', [await files.makeDir('d/e'), await files.makeDir('d/e')], [true, false])
  equal('files.rename', (await files.rename('m/3', 'd/3')).path, '/home/user/d/3')
  equal('files.exists', [await files.exists('d/3'), await files.exists('m/3')], [true, false])
  await files.remove('d')
  equal('files.remove', await files.exists('d'), false)
  await raises('files.read: nothing there', e2b.FileNotFoundError, () => files.read('no'))
  await raises('files.read: a folder', e2b.InvalidArgumentError, () => files.read('a'))
  await raises('files.list: nothing there', e2b.FileNotFoundError, () => files.list('no'))
  await raises('files.makeDir: a file stands there', e2b.InvalidArgumentError, () => files.makeDir('a/b.txt'))
  await raises('files.read: an unknown user', e2b.AuthenticationError, () => files.read('a/b.txt', { user: 'nobody-here' }))
  await sandbox.commands.run('fallocate -l 250M /dev/shm/fill')
  await raises('files.write: a full disk', e2b.NotEnoughSpaceError, () => files.write('/dev/shm/more', new Blob([new Uint8Array(12 << 20)])))
  await sandbox.commands.run('rm -f /dev/shm/*')
}

async function commands(sandbox) {
  const { commands } = sandbox
  const done = await commands.run('echo out; echo err >&2; pwd; echo $A $GREETING', { cwd: '/tmp', envs: { A: 'b' } })
  equal('commands.run', [done.stdout, done.stderr, done.exitCode], ['out\n/tmp\nb hello\n', 'err\n', 0])
  const failed = await commands.run('echo so far; exit 7').catch((error) => error)
  equal('commands.run: another exit code', [failed instanceof e2b.CommandExitError, failed.exitCode, failed.stdout], [true, 7, 'so far\n'])
  const seen = []
  await commands.run('for i in 1 2 3; do echo $i; sleep 0.05; done; echo e >&2', { onStdout: (text) => seen.push(text), onStderr: (text) => seen.push(`err ${text}`) })
  equal('commands.run: callbacks', seen.join(''), '1\n2\n3\nerr e\n')
  equal('commands.run: large output', (await commands.run("head -c 5000000 /dev/zero | tr '\\0' x")).stdout.length, 5_000_000)
  await raises('commands.run: a cwd that is not there', e2b.InvalidArgumentError, () => commands.run('true', { cwd: '/no/such' }))
  await raises('commands.run: an unknown user', e2b.AuthenticationError, () => commands.run('true', { user: 'nobody-here' }))
  await raises('commands.run: its timeout', e2b.TimeoutError, () => commands.run('sleep 60', { timeoutMs: 1000 }))
  equal('commands.run: no timeout', (await commands.run('sleep 0.2; echo ran', { timeoutMs: 0 })).stdout, 'ran\n')
  const handle = await commands.run('echo begun; sleep 0.4; exit 4', { background: true })
  await until(() => handle.stdout)
  equal('background: what is there so far', [handle.stdout, handle.exitCode], ['begun\n', undefined])
  await raises('background: wait', e2b.CommandExitError, () => handle.wait())
  equal('background: exitCode', handle.exitCode, 4)
  const cat = await commands.run('cat', { background: true, stdin: true })
  await cat.sendStdin('typed ')
  await commands.sendStdin(cat.pid, new TextEncoder().encode('twice'))
  await cat.closeStdin()
  equal('sendStdin, closeStdin', (await cat.wait()).stdout, 'typed twice')
  const sleeper = await commands.run('exec sleep 600', { background: true, envs: { ONE: '1' }, cwd: '/tmp' })
  const [listed] = (await commands.list()).filter((process) => process.pid === sleeper.pid)
  equal('commands.list', [listed?.cmd, listed?.args, listed?.cwd, listed?.envs.ONE], ['/bin/bash', ['-l', '-c', 'exec sleep 600'], '/tmp', '1'])
  const again = await commands.connect(sleeper.pid)
  equal('kill', await sleeper.kill(), true)
  await raises('connect: sees the end', e2b.CommandExitError, () => again.wait())
  equal('kill of what has ended', await commands.kill(sleeper.pid), false)
  await raises('connect: nothing there', e2b.NotFoundError, () => commands.connect(999_999))
  const quiet = await commands.run('sleep 30', { background: true })
  await quiet.disconnect()
  equal('disconnect leaves it running', await commands.kill(quiet.pid), true)
  const answers = await Promise.all([...Array(30).keys()].map((n) => commands.run(`sleep 0.2; echo ${n}`)))
  equal('thirty at once', answers.map((answer) => answer.stdout.trim()), [...Array(30).keys()].map(String))
}

async function watches(sandbox) {
  const { files, commands } = sandbox
  let events = []
  const ends = []
  const sees = (type, name) => until(() => events.some((event) => event.type === type && event.name === name))
  await files.makeDir('w/sub')
  let watch = await files.watchDir('w', (event) => void events.push(event), { onExit: (error) => void ends.push(error), includeEntry: true })
  await commands.run('echo 12345 > w/a.txt')
  check('watchDir: create', await sees(FilesystemEventType.CREATE, 'a.txt'), events)
  check('watchDir: write', await sees(FilesystemEventType.WRITE, 'a.txt'), events)
  check('watchDir: the entry', events.some((event) => event.entry?.path === '/home/user/w/a.txt'), events)
  await commands.run('chmod 600 w/a.txt')
  check('watchDir: chmod', await sees(FilesystemEventType.CHMOD, 'a.txt'), events)
  await files.rename('w/a.txt', 'w/b.txt')
  check('watchDir: rename', (await sees(FilesystemEventType.RENAME, 'a.txt')) && (await sees(FilesystemEventType.CREATE, 'b.txt')), events)
  await files.remove('w/b.txt')
  check('watchDir: remove', await sees(FilesystemEventType.REMOVE, 'b.txt'), events)
  await watch.stop()
  check('watchDir: onExit after stop', await until(() => ends.length === 1), ends)
  events = []
  watch = await files.watchDir('w', (event) => void events.push(event), { recursive: true })
  await files.write('w/sub/deep.txt', '1')
  check('watchDir: recursive', await until(() => events.some((event) => event.name === 'sub/deep.txt')), events)
  await watch.stop()
  await raises('watchDir: nothing there', e2b.FileNotFoundError, () => files.watchDir('no', () => {}))
  await raises('watchDir: a file', e2b.InvalidArgumentError, () => files.watchDir('raw', () => {}))
}

async function terminals(sandbox) {
  const { pty } = sandbox
  const encode = (text) => new TextEncoder().encode(text)
  let shown = ''
  const shell = await pty.create({ cols: 80, rows: 24, cwd: '/tmp', envs: { MARK: 'given' }, onData: (data) => void (shown += new TextDecoder().decode(data)) })
  await pty.sendInput(shell.pid, encode('stty size; pwd; echo $MARK-$((1 + 1))\n'))
  check('pty.create: size, cwd, envs', (await until(() => shown.includes('given-2'))) && shown.includes('24 80') && shown.includes('/tmp'), shown)
  await pty.resize(shell.pid, { cols: 132, rows: 50 })
  await pty.sendInput(shell.pid, encode('stty size\n'))
  check('pty.resize', await until(() => shown.includes('50 132')), shown)
  let other = ''
  const again = await pty.connect(shell.pid, { onData: (data) => void (other += new TextDecoder().decode(data)) })
  await pty.sendInput(shell.pid, encode('echo both-$((3 + 4))\n'))
  check('pty.connect', await until(() => other.includes('both-7') && shown.includes('both-7')), other)
  await again.disconnect()
  equal('pty.kill', await pty.kill(shell.pid), true)
  await shell.wait().catch(() => {})
  equal('pty.kill of what has ended', await pty.kill(shell.pid), false)
}

// fetch resolves names under localhost only where the system does: the name goes into the header alone.
function ask(host, path, options = {}, body = '') {
  const port = Number(new URL(process.env.E2B_API_URL).port)
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, method: options.method, headers: { Host: host, ...options.headers } }, (answer) => {
      const pieces = []
      answer.on('data', (piece) => pieces.push(piece))
      answer.on('end', () => resolve({ status: answer.statusCode, text: Buffer.concat(pieces).toString() }))
    })
    request.on('upgrade', (answer, socket) => resolve({ status: answer.statusCode, socket }))
    request.on('error', reject)
    request.end(body)
  })
}

const SERVER = `
const crypto = require('crypto')
const server = require('http').createServer((request, answer) => {
  const pieces = []
  request.on('data', (piece) => pieces.push(piece))
  request.on('end', () => answer.end(request.method + ' ' + request.url + ' ' + request.headers.host + ' ' + Buffer.concat(pieces)))
})
server.on('upgrade', (request, socket) => {
  const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64')
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n')
  socket.on('data', (frame) => socket.write(frame))
})
server.listen(Number(process.argv[2]), '0.0.0.0')
`

async function served(sandbox, port) {
  await sandbox.files.write('server.cjs', SERVER)
  await sandbox.commands.run(`exec node server.cjs ${port}`, { background: true, timeoutMs: 0 })
  await until(async () => (await sandbox.commands.run(`grep -qi ':${port.toString(16).padStart(4, '0')} 0*:0000 0A' /proc/net/tcp`).catch(() => null)) !== null, 10)
}

async function upgraded(host, headers = {}) {
  return ask(host, '/socket', { headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': randomBytes(16).toString('base64'), ...headers } })
}

async function traffic(sandbox) {
  await served(sandbox, 8100)
  const host = sandbox.getHost(8100)
  check('getHost', host.startsWith(`8100-${sandbox.sandboxId}.`), host)
  equal('getHost: a request', await ask(host, '/path?q=1', { method: 'POST' }, 'sent'), { status: 200, text: `POST /path?q=1 ${host} sent` })
  const { status, socket } = await upgraded(host)
  equal('getHost: a WebSocket', status, 101)
  const echoed = new Promise((resolve) => socket.once('data', resolve))
  socket.write(Buffer.from([0x81, 0x02, 0x68, 0x69]))
  equal('getHost: its frames', [...(await echoed)], [0x81, 0x02, 0x68, 0x69])
  socket.destroy()
  const closed = await ask(sandbox.getHost(8109), '/')
  check('getHost: a closed port', closed.status === 502 && JSON.parse(closed.text).message.includes('port is not open'), closed)
  await sandbox.files.write('signed file', 'by its signature')
  const url = await sandbox.downloadUrl('signed file')
  equal('downloadUrl', await (await fetch(url)).text(), 'by its signature')
  const form = new FormData()
  form.append('file', new Blob(['uploaded']), 'any')
  const sent = await fetch(await sandbox.uploadUrl('up', { useSignatureExpiration: 30_000 }), { method: 'POST', body: form })
  equal('uploadUrl', [sent.status, await sandbox.files.read('up')], [200, 'uploaded'])
  equal('a wrong signature', (await fetch(url.replace('signature=v1_', 'signature=v1_x'))).status, 401)
  equal('no signature', (await fetch(url.split('&signature')[0])).status, 401)
  const short = await sandbox.downloadUrl('signed file', { useSignatureExpiration: 1 })
  const late = await until(async () => {
    const answer = await fetch(short)
    return answer.status === 401 && (await answer.json())
  })
  equal('an expired signature', late, { code: 401, message: 'signature is already expired' })
  const secured = await Sandbox.create({ timeoutMs: 60_000, network: { allowPublicTraffic: false } })
  await served(secured, 8100)
  equal('allowPublicTraffic: no token', (await ask(secured.getHost(8100), '/')).status, 403)
  const headers = { 'e2b-traffic-access-token': secured.trafficAccessToken }
  equal('allowPublicTraffic: the token', (await ask(secured.getHost(8100), '/', { headers })).status, 200)
  equal('allowPublicTraffic: a WebSocket', [(await upgraded(secured.getHost(8100))).status, (await upgraded(secured.getHost(8100), headers)).status], [403, 101])
  await secured.kill()
}

async function git(sandbox) {
  const { git, files } = sandbox
  await git.configureUser('Suite', 'suite@example.com')
  await git.init('hub.git', { bare: true, initialBranch: 'main' })
  await git.clone('/home/user/hub.git', { path: 'work' })
  await files.write('work/a.txt', 'one')
  equal('git.status', (await git.status('work')).fileStatus.map((entry) => [entry.name, entry.status]), [['a.txt', 'untracked']])
  await git.add('work')
  await git.commit('work', 'first')
  await git.push('work', { remote: 'origin', branch: 'main' })
  await git.createBranch('work', 'topic')
  const branches = await git.branches('work')
  equal('git.commit, push, branches', [branches.branches.sort(), branches.currentBranch], [['main', 'topic'], 'topic'])
  await git.clone('/home/user/hub.git', { path: 'copy', branch: 'main' })
  equal('git.clone', await files.read('copy/a.txt'), 'one')
}

async function life() {
  const mark = `node-${process.pid}`
  const made = await Promise.all([0, 1, 2, 3].map((n) => Sandbox.create({ timeoutMs: 60_000, metadata: { of: mark, n: String(n), 'odd key': 'v&2=ü' } })))
  const ids = made.map((one) => one.sandboxId)
  const found = []
  const sizes = []
  const paginator = Sandbox.list({ query: { metadata: { of: mark, 'odd key': 'v&2=ü' } }, limit: 3 })
  while (paginator.hasNext) {
    const page = await paginator.nextItems()
    sizes.push(page.length)
    found.push(...page)
  }
  equal('list: pages', [sizes.slice(0, 2), found.map((one) => one.sandboxId).sort()], [[3, 1], [...ids].sort()])
  const paused = Sandbox.list({ query: { metadata: { of: mark }, state: ['paused'] } })
  equal('list: by state', await paused.nextItems(), [])
  const [one, two, three, four] = made
  const info = await one.getInfo()
  equal('getInfo', [info.sandboxId, info.templateId, info.metadata.n, info.state, Math.round((info.endAt - info.startedAt) / 1000)], [one.sandboxId, 'base', '0', 'running', 60])
  equal('isRunning', await one.isRunning(), true)
  await one.setTimeout(300_000)
  check('setTimeout', (await one.getInfo()).endAt - Date.now() > 250_000)
  await one.files.write('kept', 'kept')
  equal('pause, twice', [await one.pause(), await one.pause()], [true, false])
  equal('pause: its state', (await Sandbox.getInfo(one.sandboxId)).state, 'paused')
  const back = await Sandbox.connect(one.sandboxId, { timeoutMs: 60_000 })
  equal('connect resumes', [await back.files.read('kept'), (await back.getInfo()).state], ['kept', 'running'])
  const streaming = two.commands.run('sleep 100').catch((error) => error)
  const ends = []
  await two.files.watchDir('.', () => {}, { onExit: (error) => void ends.push(error), timeoutMs: 0 })
  await rest(200)
  equal('kill', await two.kill(), true)
  const ended = await streaming
  check('killed while streaming', ended instanceof e2b.TimeoutError, ended)
  check('killed while watching', (await until(() => ends.length)) && ends[0] instanceof e2b.TimeoutError, ends)
  equal('isRunning after the end', await two.isRunning(), false)
  await raises('commands after the end', e2b.SandboxNotFoundError, () => two.commands.run('true'))
  await raises('files after the end', e2b.TimeoutError, () => two.files.read('x'))
  await three.setTimeout(1000)
  check('a timeout ends it', await until(async () => !(await three.isRunning())))
  equal('kill of what has ended', [await three.kill(), await Sandbox.kill(three.sandboxId)], [false, false])
  const nobody = `i${'0'.repeat(20)}`
  await raises('connect: nothing there', e2b.SandboxNotFoundError, () => Sandbox.connect(nobody))
  await raises('getInfo: nothing there', e2b.SandboxNotFoundError, () => Sandbox.getInfo(nobody))
  await raises('setTimeout: nothing there', e2b.SandboxNotFoundError, () => Sandbox.setTimeout(nobody, 1000))
  await raises('a wrong key', e2b.AuthenticationError, () => Sandbox.create({ apiKey: `e2b_${'0'.repeat(40)}` }))
  await raises('an unknown template', e2b.SandboxError, () => Sandbox.create('no-such-template'), '404')
  const snapshot = await back.createSnapshot()
  equal('deleteSnapshot', await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
  const kept = await Sandbox.create({ timeoutMs: 1500, lifecycle: { onTimeout: 'pause', autoResume: true } })
  await kept.files.write('kept', 'by its lifecycle')
  check('lifecycle: paused by its timeout', await until(async () => (await kept.getInfo()).state === 'paused'))
  equal('lifecycle: resumed by traffic', await kept.files.read('kept'), 'by its lifecycle')
  const metrics = await until(() => four.getMetrics().then((found) => found.length && found), 12)
  check('getMetrics', metrics && metrics[0].cpuCount > 0 && metrics[0].memTotal > 0 && metrics[0].timestamp instanceof Date, metrics)
  equal('kill: the rest', await Promise.all([back.kill(), four.kill(), kept.kill()]), [true, true, true])
}

try {
  const sandbox = await Sandbox.create({ timeoutMs: 300_000, envs: { GREETING: 'hello' } })
  for (const subject of [files, commands, watches, terminals, traffic, git, life]) await subject(sandbox)
  equal('kill, twice', [await sandbox.kill(), await sandbox.kill()], [true, false])
} catch (error) {
  check('the scenario came to its end', false, error)
}
console.log('end')
process.exit(0)
