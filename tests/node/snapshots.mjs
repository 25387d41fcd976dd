// Snapshots and forks through E2B's JavaScript SDK against `sandhold serve`.
import { Sandbox } from 'e2b'

const check = (name, good, detail = '') => console.log(good ? `ok    ${name}` : `FAIL  ${name}: ${detail}`)

const source = await Sandbox.create({ timeoutMs: 300_000, metadata: { suite: 'snapshots-js' } })
await source.files.write('one', '1')
const snapshot = await source.createSnapshot({ name: 'from-js' })
check('a snapshot has an id', snapshot.snapshotId === 'from-js:default', JSON.stringify(snapshot))
check('and its name', JSON.stringify(snapshot.names) === '["from-js:default"]', JSON.stringify(snapshot))
await source.files.write('one', 'changed')

const copy = await Sandbox.create(snapshot.snapshotId, { timeoutMs: 60_000 })
check('a sandbox of it has its files', (await copy.files.read('one')) === '1')
check('and works', (await copy.commands.run('echo $((6*7))')).stdout === '42\n')

const listed = []
const pages = Sandbox.listSnapshots({ sandboxId: source.sandboxId, limit: 1 })
while (pages.hasNext) listed.push(...(await pages.nextItems()))
check('it is listed', listed.length === 1 && listed[0].snapshotId === snapshot.snapshotId, JSON.stringify(listed))

const forks = await source.fork({ count: 2, timeoutMs: 60_000 })
check('two forks', forks.length === 2 && forks.every((f) => f instanceof Sandbox), String(forks))
await forks[0].files.write('one', 'fork')
check('a fork has the files', (await forks[1].files.read('one')) === 'changed')
check('and its own from then on', (await source.files.read('one')) === 'changed')

check('deleted', (await Sandbox.deleteSnapshot(snapshot.snapshotId)) === true)
check('deleted once', (await Sandbox.deleteSnapshot(snapshot.snapshotId)) === false)
let refused = ''
await Sandbox.create(snapshot.snapshotId).catch((error) => (refused = String(error)))
check('nothing is made of one that is gone', refused.includes('404'), refused)
check('what was made of it lives on', (await copy.files.read('one')) === '1')
for (const sandbox of [source, copy, ...forks]) await sandbox.kill()
console.log('end')
