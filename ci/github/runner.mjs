// What main.mjs and post.mjs share: the ways to talk to GitHub's runner, and relay's result file.
//
// Text goes out by writes to descriptor 1. process.stdout would make that pipe non-blocking for
// relay too, which writes to the same one.

import { randomUUID } from 'node:crypto'
import fs from 'node:fs'

/** Prints a line to the job's log. */
export function say(text) {
  fs.writeFileSync(1, `${text}\n`)
}

/** Prints an annotation: `level` is `error` or `warning`. The text may be anything. */
export function annotate(level, text) {
  const escaped = text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
  say(`::${level}::${escaped}`)
}

const problems = []

/** Does what the deployment does not depend on. If it fails, that is a warning. */
export async function attempt(what, act) {
  try {
    return await act()
  } catch (error) {
    problems.push(`${what}: ${error.message}`)
    return undefined
  }
}

/** Prints all warnings as one, because GitHub shows few of them. */
export function warn() {
  if (problems.length > 0) annotate('warning', problems.join('\n'))
}

/** The value of an input, or an empty text. */
export function input(name) {
  return process.env[`INPUT_${name.toUpperCase()}`] ?? ''
}

/** The environment for relay: with its key, and without the inputs, one of which is the token. */
export function environment(key) {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('INPUT_'))
  return { ...Object.fromEntries(kept), ...(key && { RELAY_SIGNING_KEY: key }) }
}

/** Sets outputs of the step. */
export function setOutputs(values) {
  append('GITHUB_OUTPUT', values)
}

/** Keeps values for the post step, which finds them with `state`. */
export function saveState(values) {
  append('GITHUB_STATE', values)
}

/** What the main step kept, or an empty text. */
export function state(name) {
  return process.env[`STATE_${name}`] ?? ''
}

function append(variable, values) {
  for (const [name, value] of Object.entries(values)) {
    // Nobody can guess where the value ends, so no value can set another one.
    const end = `relay-${randomUUID()}`
    fs.appendFileSync(process.env[variable], `${name}<<${end}\n${value}\n${end}\n`)
  }
}

/** The text of a file; empty if there is none. */
export function read(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
}

/** What relay wrote to its result file, or null if it did not get that far. */
export function readResult(file) {
  try {
    const result = JSON.parse(read(file))
    return typeof result?.exit_code === 'number' ? result : null
  } catch {
    return null
  }
}

/** Whether relay saw the deployment's end. At a second signal, it leaves before that. */
export function sawEnd(result) {
  const left = result?.decided_by === 'relay' && result.reason === null
  return result !== null && !(left && [130, 143].includes(result.exit_code))
}

const OUTCOMES = {
  0: 'success',
  119: 'usage',
  120: 'refused',
  121: 'never-started',
  122: 'unknown',
  123: 'incomplete',
  124: 'timed-out',
  125: 'fault',
  130: 'cancelled',
  143: 'cancelled',
}

/** How the deployment ended, in a word. Only the result tells a tool's 120 from relay's own. */
export function outcomeOf(result, code) {
  return result?.decided_by === 'tool' && code !== 0 ? 'failure' : (OUTCOMES[code] ?? 'unknown')
}
