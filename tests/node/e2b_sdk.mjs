// E2B's own JavaScript SDK, unmodified, against `sandhold serve`.
// usage: node e2b_sdk.mjs, with E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY set
import { Sandbox } from 'e2b'

let passed = 0
let failed = 0

function check(name, good, detail = '') {
  if (good) passed++
  else failed++
  console.log(`${good ? 'ok   ' : 'FAIL '} ${name}${good ? '' : `: ${JSON.stringify(detail)}`}`)
}

async function raised(attempt) {
  try {
    await attempt()
    return 'nothing'
  } catch (error) {
    return error.name
  }
}

try {
  const sandbox = await Sandbox.create({ timeoutMs: 120_000, envs: { GREETING: 'hello' } })
  const done = await sandbox.commands.run('echo "$GREETING"; echo err >&2')
  check('commands.run', done.stdout === 'hello\n' && done.stderr === 'err\n', done)
  check('a failing command raises', (await raised(() => sandbox.commands.run('exit 3'))) === 'CommandExitError')
  const seen = []
  await sandbox.commands.run('for i in 1 2 3; do echo $i; sleep 0.1; done', { onStdout: (data) => seen.push(data) })
  check('output is streamed', seen.join('') === '1\n2\n3\n', seen)
  const reader = await sandbox.commands.run('cat', { background: true, stdin: true })
  await sandbox.commands.sendStdin(reader.pid, 'typed\n')
  await sandbox.commands.closeStdin(reader.pid)
  check('stdin', (await reader.wait()).stdout === 'typed\n')
  await sandbox.files.write('a/b.txt', 'text ü\n')
  check('files.read', (await sandbox.files.read('a/b.txt')) === 'text ü\n')
  const events = []
  const watcher = await sandbox.files.watchDir('a', (event) => events.push(event.name))
  await sandbox.files.write('a/new.txt', '1')
  for (let i = 0; i < 50 && !events.includes('new.txt'); i++) await new Promise((r) => setTimeout(r, 100))
  await watcher.stop()
  check('files.watchDir', events.includes('new.txt'), events)
  check('files.list', (await sandbox.files.list('a')).map((entry) => entry.name).sort().join() === 'b.txt,new.txt')
  check('a missing file', ['NotFoundError', 'FileNotFoundError'].includes(await raised(() => sandbox.files.read('nowhere'))))
  let shown = ''
  const terminal = await sandbox.pty.create({ cols: 80, rows: 24, onData: (data) => (shown += new TextDecoder().decode(data)) })
  await sandbox.pty.resize(terminal.pid, { cols: 100, rows: 30 })
  await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('stty size; exit\n'))
  await terminal.wait()
  check('pty', shown.includes('30 100'), shown)
  const again = await Sandbox.connect(sandbox.sandboxId)
  check('connect', (await again.files.exists('a/b.txt')) === true)
  check('kill', (await sandbox.kill()) === true && (await sandbox.kill()) === false)
} catch (error) {
  failed++
  console.log(`FAIL  the scenario broke off: ${error.stack}`)
}
console.log(JSON.stringify({ passed, failed, notes: [] }))
process.exit(failed ? 1 : 0)
