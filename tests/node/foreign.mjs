// The protocol's TypeScript SDKs, 1.32 and 2.4, against `sandhold mcp`: every tool, calls, errors, over stdio and HTTP.
// usage: node foreign.mjs SETTINGS, a file of JSON: {command, args, env, url, headers, tools}, with the tools as the server lists them
import { readFileSync } from 'node:fs'
import * as second from '@modelcontextprotocol/client'
import { StdioClientTransport as SecondStdio } from '@modelcontextprotocol/client/stdio'
import { AjvJsonSchemaValidator } from '@modelcontextprotocol/client/validators/ajv'
import { Client as First } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport as FirstStdio } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport as FirstHttp } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const { command, args, env, url, headers, tools } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const timeout = { timeout: 90_000 }

function check(name, good, detail = '') {
  let shown = detail
  if (!good && typeof detail !== 'string') shown = detail instanceof Error ? detail.stack : JSON.stringify(detail)
  console.log(good ? `ok    ${name}` : `FAIL  ${name}: ${String(shown).replaceAll('\n', ' | ').slice(0, 1000)}`)
}

function equal(name, got, wanted) {
  check(name, JSON.stringify(got) === JSON.stringify(wanted), `got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`)
}

// All arguments that a tool has, null where none is meant.
function nulls(tool, given) {
  const { properties } = tools.find(({ name }) => name === tool).inputSchema
  return { ...Object.fromEntries(Object.keys(properties).map((name) => [name, null])), ...given }
}

const textOf = ({ content }) => content.filter(({ type }) => type === 'text').map(({ text }) => text).join('\n')

async function use(who, client, transport, protocol, call) {
  await client.connect(transport, timeout)
  try {
    if (protocol) equal(`${who}: the protocol`, client.getNegotiatedProtocolVersion(), protocol)
    const listed = (await client.listTools(undefined, timeout)).tools
    equal(`${who}: every tool, in the server's order`, listed.map(({ name }) => name), tools.map(({ name }) => name))
    for (const [at, tool] of listed.entries()) {
      equal(`${who}: ${tool.name}: the annotations`, tool.annotations, tools[at].annotations)
      const said = [tool.title, tool.description, tool.inputSchema, tool.outputSchema]
      check(`${who}: ${tool.name}: nothing is lost`, said.every(Boolean), tool)
    }
    // The client holds structured results against the output schemas it has listed.
    await call({ name: 'write_file', arguments: nulls('write_file', { path: 'notes.txt', content: 'one\ntwo\n' }) })
    const good = await call({ name: 'run_command', arguments: nulls('run_command', { cmd: 'wc -l < notes.txt' }) })
    equal(`${who}: a call`, [good.structuredContent.stdout, good.isError ?? false], ['2\n', false])
    const bad = await call({ name: 'read_file', arguments: { path: 'nowhere.txt' } })
    check(`${who}: an error`, bad.isError && textOf(bad).includes('nowhere.txt'), bad)
    equal(`${who}: an error, structured`, [bad.structuredContent.ok, bad.structuredContent.error.code], [false, 'not_found'])
    let refused
    try {
      const answer = await call({ name: 'no_such_tool', arguments: {} })
      refused = answer.isError && textOf(answer)
    } catch (error) {
      refused = error.message
    }
    check(`${who}: a tool that is not there`, String(refused).includes('no_such_tool'), refused)
  } finally {
    await client.close()
  }
}

const me = { name: 'foreign', version: '0' }

for (const [how, make] of [
  ['stdio', () => new FirstStdio({ command, args, env, stderr: 'ignore' })],
  ['http', () => new FirstHttp(new URL(url), { requestInit: { headers } })],
]) {
  const client = new First(me)
  await use(`sdk 1, ${how}`, client, make(), undefined, (request) => client.callTool(request, undefined, timeout))
}

for (const [mode, protocol] of [['legacy', '2025-11-25'], ['auto', '2026-07-28']]) {
  for (const [how, make] of [
    ['stdio', () => new SecondStdio({ command, args, env, stderr: 'ignore' })],
    ['http', () => new second.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } })],
  ]) {
    const client = new second.Client(me, { versionNegotiation: { mode } })
    await use(`client 2, ${how}, ${mode}`, client, make(), protocol, (request) => client.callTool(request, timeout))
  }
}

// The validator of the SDKs, which complains of formats and keywords it does not know.
const validator = new AjvJsonSchemaValidator()
for (const { name, inputSchema, outputSchema } of tools) {
  for (const [side, schema] of [['input', inputSchema], ['output', outputSchema]]) {
    try {
      const validate = validator.getValidator(schema)
      equal(`ajv: ${name}: the ${side} schema refuses a list`, validate([]).valid, false)
    } catch (error) {
      check(`ajv: ${name}: the ${side} schema`, false, error)
    }
  }
}

console.log('end')
