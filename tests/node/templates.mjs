// A template built through E2B's JavaScript SDK against `sandhold serve`, from the image that the argument names.
import { mkdirSync, writeFileSync } from 'node:fs'
import { Sandbox, Template, waitForFile } from 'e2b'

const check = (name, good, detail = '') => console.log(good ? `ok    ${name}` : `FAIL  ${name}: ${detail}`)
const image = process.argv[2]

const context = `${process.env.TMPDIR}/context-js`
mkdirSync(`${context}/app`, { recursive: true })
writeFileSync(`${context}/app/main.txt`, 'main\n')

const template = (word) =>
  Template({ fileContextPath: context })
    .fromImage(image)
    .runCmd(`echo ${word} > /home/user/word`)
    .copy('app', '/srv/app')
    .setEnvs({ FROM: 'js' })
    .setWorkdir('/srv/app')
    .setStartCmd('touch /tmp/ready; exec sleep 1000', waitForFile('/tmp/ready'))

const log = []
const first = await Template.build(template('first'), 'from-js', { onBuildLogs: (line) => log.push(line.message) })
check('a template is built', first.templateId.length === 20, JSON.stringify(first))
check('its log is told', log.some((line) => line.startsWith('[1/4] RUN ')), log.join('\n'))
check('it exists', (await Template.exists('from-js')) && !(await Template.exists('not-from-js')))

const sandbox = await Sandbox.create('from-js', { timeoutMs: 60_000 })
check('RUN', (await sandbox.files.read('/home/user/word')) === 'first\n')
check('COPY', (await sandbox.files.read('main.txt')) === 'main\n')
check('ENV and WORKDIR', (await sandbox.commands.run('echo $FROM; pwd')).stdout === 'js\n/srv/app\n')
check('what runs from the start', (await sandbox.commands.list()).some((process) => process.tag === 'sandhold-start'))
await sandbox.kill()

const second = await Template.build(template('second'), 'from-js', { tags: ['v2'] })
check('one template', second.templateId === first.templateId && second.buildId !== first.buildId)
await Template.assignTags('from-js:v2', ['next'])
const tags = Object.fromEntries((await Template.getTags('from-js')).map((tag) => [tag.tag, tag.buildId]))
check('tags', tags.default === first.buildId && tags.v2 === second.buildId && tags.next === second.buildId, JSON.stringify(tags))
await Template.removeTags('from-js', ['next'])
check('a tag less', !(await Template.getTags('from-js')).some((tag) => tag.tag === 'next'))

let refused = ''
await Template.build(Template().fromImage(image).runCmd('exit 9'), 'fails-js').catch((error) => (refused = String(error)))
check('a step that fails says how', refused.includes('exit status 9'), refused)
console.log('end')
