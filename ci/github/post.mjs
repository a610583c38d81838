// The post step: asks a deployment to stop whose end the main step did not live to see, because the
// job was cancelled. It says what it did, and never fails the job.

import { spawnSync } from 'node:child_process'
import { endDeployment } from './api.mjs'
import * as runner from './runner.mjs'
import { attempt, input, state } from './runner.mjs'

function cancel(run, id) {
  runner.say(`relay did not see the end of deployment ${id}: asking it to stop`)
  const config = run.config ? [`--config=${run.config}`] : []
  const words = ['cancel', `--target=${run.target}`, ...config, '--', id]
  const { error, status } = spawnSync(run.program, words, {
    cwd: run.cwd,
    env: runner.environment(run.key ?? input('key').trim()),
    stdio: ['ignore', 1, 1],
    timeout: 120_000,
  })
  if (status === 0) return
  const hint = `run \`relay cancel ${id} --target ${run.target}\` on a machine that may deploy`
  throw new Error(`${error?.message ?? `relay cancel exited with ${status}`}; ${hint}`)
}

async function post(run) {
  const result = runner.readResult(run.files.result)
  const id = runner.read(run.files.id).trim()
  if (id && !runner.sawEnd(result)) {
    await attempt(`deployment ${id} may still be running`, () => cancel(run, id))
  }
  if (run.deployment && !state('done')) {
    const outcome = runner.outcomeOf(result, result?.exit_code)
    await attempt('the GitHub deployment has no end', () =>
      endDeployment(input('token'), run.deployment, outcome, id),
    )
  }
}

if (state('run')) await attempt('the post step of relay', () => post(JSON.parse(state('run'))))
runner.warn()
process.exit(0)
