// The calls to GitHub's REST API: a deployment with its statuses, an artifact deployment record,
// and a comment on a pull request. A call that fails throws an error with what to do about it.

import http from 'node:http'
import { read } from './runner.mjs'

let proxied

/** Asks for a URL, and gives up after 30 seconds, which include the body. */
export async function request(url, options = {}) {
  const signal = AbortSignal.timeout(30_000)
  try {
    // fetch heeds http_proxy and its kin only if it is told to. An older Node cannot be told.
    proxied ??= http.setGlobalProxyFromEnv?.() ?? true
    return await fetch(url, { ...options, signal })
  } catch (error) {
    throw new Error(signal.aborted ? 'no answer in 30 s' : (error.cause?.message ?? error.message))
  }
}

async function call(token, permission, method, path, body) {
  const answer = await request(`${process.env.GITHUB_API_URL}${path}`, {
    method,
    headers: {
      accept: 'application/vnd.github+json',
      authorization: `Bearer ${token}`,
      'x-github-api-version': '2022-11-28',
    },
    body: body && JSON.stringify(body),
  })
  if (answer.ok) return answer.json()
  const { message = '' } = await answer.json().catch(() => ({}))
  const hint =
    `; add \`permissions: ${permission}: write\` to the job. ` +
    'A pull request of a fork never gets it'
  const lacks = [401, 403, 404].includes(answer.status)
  throw new Error(`GitHub answered ${answer.status} ${message}${lacks ? hint : ''}`)
}

const repository = () => `/repos/${process.env.GITHUB_REPOSITORY}`

/** Creates a GitHub deployment that is in progress, and returns its id. */
export async function startDeployment(token, environment, target) {
  const { id } = await call(token, 'deployments', 'POST', `${repository()}/deployments`, {
    ref: process.env.GITHUB_SHA,
    environment,
    auto_merge: false,
    required_contexts: [],
    payload: { relay_target: target },
  })
  await setStatus(token, id, 'in_progress', `relay deploy ${target}`)
  return id
}

const STATES = {
  success: 'success',
  failure: 'failure',
  refused: 'failure',
  'never-started': 'failure',
  'timed-out': 'failure',
}

/** Says how a GitHub deployment ended. What nobody knows is an error, and no failure. */
export function endDeployment(token, id, outcome, relayId) {
  const text = relayId ? `${outcome}: relay deployment ${relayId}` : outcome
  return setStatus(token, id, STATES[outcome] ?? 'error', text)
}

function setStatus(token, id, state, description) {
  const { GITHUB_SERVER_URL, GITHUB_REPOSITORY, GITHUB_RUN_ID } = process.env
  return call(token, 'deployments', 'POST', `${repository()}/deployments/${id}/statuses`, {
    state,
    description: description.slice(0, 140),
    log_url: `${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_ID}`,
  })
}

/** Records on the organization's page of linked artifacts where an image runs. */
export function recordArtifact(token, environment, target, digest) {
  const [owner, name] = process.env.GITHUB_REPOSITORY.split('/')
  const path = `/orgs/${owner}/artifacts/metadata/deployment-record`
  return call(token, 'artifact-metadata', 'POST', path, {
    name,
    digest,
    status: 'deployed',
    logical_environment: environment,
    deployment_name: target,
    github_repository: name,
  })
}

/** The number of the pull request that this run is about, if it is about one. */
export function pullRequest() {
  return JSON.parse(read(process.env.GITHUB_EVENT_PATH) || '{}').pull_request?.number
}

/** Puts the text into the target's one comment on a pull request. */
export async function comment(token, number, target, text) {
  const send = (...words) => call(token, 'pull-requests', ...words)
  const marker = `<!-- relay: ${target} -->`
  const body = `${marker}\n${text}`
  const comments = `${repository()}/issues/${number}/comments`
  for (let page = 1, found = []; page === 1 || found.length === 100; page++) {
    found = await send('GET', `${comments}?per_page=100&page=${page}`)
    const ours = found.find((one) => one.body?.startsWith(marker) && isTrusted(one))
    if (ours) return send('PATCH', `${repository()}/issues/comments/${ours.id}`, { body })
  }
  return send('POST', comments, { body })
}

// A stranger may write a comment with the marker, and could later edit what we put into it.
function isTrusted({ user, author_association: association }) {
  return user?.type === 'Bot' || ['OWNER', 'MEMBER', 'COLLABORATOR'].includes(association)
}
