// The main step: finds relay, lets it deploy, and passes on how that ended. relay prints to the
// job's log by itself; this program says nothing until relay has exited.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import * as api from './api.mjs'
import * as runner from './runner.mjs'
import { attempt, input } from './runner.mjs'

/** Why relay was not started, with the exit code that relay has for such a case. */
class Refusal extends Error {
  constructor(message, code = 119) {
    super(message)
    this.code = code
  }
}

const text = (name) => input(name).trim()

/** The values of an input that has one in each line. */
function lines(name, form) {
  return input(name)
    .split(/\r?\n/)
    .map((line) => line.trimStart())
    .filter((line, index) => {
      if (line === '' || /^[^=\s]+=/.test(line)) return line !== ''
      const found = `line ${index + 1} of the input \`${name}\` is ${JSON.stringify(line)}`
      throw new Refusal(`${found}; write ${form}, each in one line`)
    })
}

function flag(name) {
  const value = text(name).toLowerCase()
  if (['', 'true', 'false'].includes(value)) return value === 'true'
  throw new Refusal(`the input \`${name}\` is ${JSON.stringify(value)}; write true or false`)
}

function readInputs() {
  const given = {
    target: text('target'),
    parameters: lines('parameters', 'NAME=VALUE'),
    artifacts: lines('artifacts', 'NAME=PATH'),
    key: text('key'),
    config: text('config'),
    cwd: path.resolve(text('working-directory')),
    environment: text('environment') || text('target'),
    wantsDeployment: flag('github-deployment'),
    wantsComment: flag('comment'),
  }
  if (!given.target) throw new Refusal('the input `target` is missing')
  if (!fs.statSync(given.cwd, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Refusal(`the input \`working-directory\` names no folder: ${given.cwd}`)
  }
  if (given.key === 'oidc' && !process.env.ACTIONS_ID_TOKEN_REQUEST_URL) {
    throw new Refusal(
      'this job may not ask GitHub for an identity token; add `permissions: id-token: write` to ' +
        'the job. A pull request of a fork never gets it',
    )
  }
  return given
}

const PLATFORMS = {
  'linux x64': 'x86_64-unknown-linux-musl',
  'linux arm64': 'aarch64-unknown-linux-musl',
  'darwin x64': 'x86_64-apple-darwin',
  'darwin arm64': 'aarch64-apple-darwin',
}

/** Returns the path of relay: the given one, or the release's, which it downloads. */
async function findRelay(folder) {
  if (text('relay')) return path.resolve(text('relay'))
  const release = JSON.parse(runner.read(new URL('release.json', import.meta.url)))
  if (release.version === null) {
    throw new Refusal(
      'this commit of the action belongs to no release of relay; pin the action to the commit of ' +
        'a release, or name a program of your own with the input `relay`',
    )
  }
  const platform = `${process.platform} ${process.arch}`
  const name = `relay-${PLATFORMS[platform]}`
  const expected = release.files[name]
  if (!expected) throw new Refusal(`relay ${release.version} has no program for ${platform}`)
  const url = `${release.url}v${release.version}/${name}`
  const bytes = await download(url)
  const actual = createHash('sha256').update(bytes).digest('hex')
  if (actual !== expected) {
    throw new Refusal(
      `${url} was not run: its SHA-256 is ${actual}, but this commit of the action expects ` +
        `${expected}. Somebody has replaced the file; tell the maintainers of relay`,
      125,
    )
  }
  const file = path.join(folder, 'relay')
  fs.writeFileSync(file, bytes, { mode: 0o755 })
  return file
}

async function download(url) {
  try {
    const answer = await api.request(url)
    if (answer.ok) return Buffer.from(await answer.arrayBuffer())
    throw new Error(`the server answered ${answer.status}`)
  } catch (error) {
    const hint = 'check the network and the proxy, then run the job again'
    throw new Refusal(`cannot download ${url}: ${error.message}; ${hint}`, 125)
  }
}

function commandLine(given, files) {
  const options = ['wait-approval', 'wait', 'timeout', 'config'].filter((name) => text(name))
  return [
    'deploy',
    ...given.parameters.map((line) => `--param=${line}`),
    ...given.artifacts.map((line) => `--artifact=${line}`),
    ...options.map((name) => `--${name}=${text(name)}`),
    `--id-file=${files.id}`,
    `--result-file=${files.result}`,
    `--summary-file=${files.summary}`,
    '--fold=github',
    '--',
    given.target,
  ]
}

/** Runs relay to its end, and returns its exit code. relay gets each signal that we get. */
function run(program, words, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { ...options, stdio: ['ignore', 1, 1] })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, () => child.kill(signal))
    }
    child.on('exit', (code, signal) => resolve(code ?? 128 + os.constants.signals[signal]))
    child.on('error', (error) => {
      reject(new Refusal(`cannot run ${program}: ${error.message}; check the input \`relay\``))
    })
  })
}

/** What the annotation says of a deployment without success. */
function explain(target, { result, outcome, code, id }) {
  const step = result?.step ? ` in step ${result.step}` : ''
  const reason = result?.reason ? ` (${result.reason})` : ''
  const how = `${outcome}${reason}, exit code ${code}`
  const what = outcome === 'failure' ? `the tool exited with ${code}${step}` : how
  const why = result ? [result.message, ...(result.hints ?? [])] : ['relay said why in the log']
  return [`${target}: ${what}`, ...why, id && `deployment ${id}`].filter(Boolean).join('\n')
}

function setOutputs(files, { result, outcome, code, id }) {
  if (result?.record) fs.writeFileSync(files.record, JSON.stringify(result.record))
  runner.setOutputs({
    'deployment-id': id,
    outcome,
    'exit-code': code,
    record: result?.record ? files.record : '',
    result: files.result,
    outputs: JSON.stringify(result?.outputs ?? {}),
  })
}

const SUMMARY_LIMIT = 1_048_576 // GitHub shows nothing of a step whose summary is as large.

function showSummary(summary) {
  const file = process.env.GITHUB_STEP_SUMMARY
  if (!file || !summary) return
  const size = Buffer.byteLength(runner.read(file)) + Buffer.byteLength(summary) + 1
  if (size >= SUMMARY_LIMIT) throw new Error('GitHub shows less than 1 MiB for each step')
  fs.appendFileSync(file, `${summary}\n`)
}

/** Tells GitHub how it ended, as far as the caller wants that. */
async function publish(given, deployment, { result, outcome, id, summary }) {
  const token = input('token')
  const { target, environment } = given
  if (deployment) {
    await attempt('the GitHub deployment has no end', () =>
      api.endDeployment(token, deployment, outcome, id),
    )
  }
  const digest = result?.outputs?.image_digest
  const isDigest = /^sha256:[0-9a-f]{64}$/.test(digest)
  if (given.wantsDeployment && outcome === 'success' && isDigest) {
    await attempt('the artifact deployment record is missing', () =>
      api.recordArtifact(token, environment, target, digest),
    )
  }
  if (given.wantsComment && summary) {
    await attempt('the comment is missing', async () => {
      const number = api.pullRequest()
      if (number) await api.comment(token, number, target, summary)
    })
  }
}

async function main() {
  const given = readInputs()
  const { target, key, config, cwd } = given
  const folder = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP, 'relay-'))
  const names = { id: 'id', result: 'result.json', summary: 'summary.md', record: 'record.json' }
  const files = Object.fromEntries(
    Object.entries(names).map(([file, name]) => [file, path.join(folder, name)]),
  )
  const program = await findRelay(folder)
  const deployment = await attempt('there is no GitHub deployment', () =>
    given.wantsDeployment
      ? api.startDeployment(input('token'), given.environment, target)
      : undefined,
  )
  // A private key is not written to a file; the post step gets it as an input again.
  const kept = key.includes('-----BEGIN') ? undefined : key
  const state = { program, target, key: kept, config, cwd, files, deployment }
  runner.saveState({ run: JSON.stringify(state) })

  const code = await run(program, commandLine(given, files), {
    cwd,
    env: runner.environment(key),
  })

  const result = runner.readResult(files.result)
  const end = {
    result,
    code,
    outcome: runner.outcomeOf(result, code),
    id: runner.read(files.id).trim(),
    summary: runner.read(files.summary),
  }
  if (code !== 0) runner.annotate('error', explain(target, end))
  await attempt('the outputs are missing', () => setOutputs(files, end))
  await attempt('the summary is left out', () => showSummary(end.summary))
  await publish(given, deployment, end)
  await attempt('the state is not kept', () => runner.saveState({ done: 'true' }))
  return code
}

let code
try {
  code = await main()
} catch (error) {
  const known = error instanceof Refusal
  code = known ? error.code : 125
  runner.annotate('error', known ? error.message : error.stack)
  runner.setOutputs({ outcome: runner.outcomeOf(null, code), 'exit-code': code, outputs: '{}' })
}
runner.warn()
process.exit(code)
