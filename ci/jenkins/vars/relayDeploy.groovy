// relayDeploy: a Pipeline step that runs one `relay deploy`, and stops the deployment if the build
// is aborted. It is safe under Jenkins' CPS: only the methods without @NonCPS call steps.
// How to load it: ci/jenkins/README.md. The options: relayDeploy.txt, beside this file.

import groovy.json.JsonSlurperClassic

def call(Map options) {
    String mistake = mistakeIn(options)
    if (mistake) {
        error("relayDeploy: ${mistake}; nothing was published. Correct the Jenkinsfile")
    }
    // Beside the workspace and not in it, so that an artifact of the workspace does not contain it.
    String folder = "${pwd(tmp: true)}/.relay-${UUID.randomUUID()}"
    try {
        int exitCode
        try {
            exitCode = sh(label: "relay deploy ${options.target}", script: deployScript(options, folder), returnStatus: true)
        } catch (Exception interruption) {
            // An abort, a timeout, or an agent that is gone. Jenkins waits 20 seconds at most for
            // the process, and relay may need longer, or may not have got a signal at all.
            stopUnfinished(options, folder)
            throw interruption
        }
        Map result = outcomeOf(exitCode, textOf("${folder}/id"), textOf("${folder}/result.json"), textOf("${folder}/summary.md"))
        String problem = result.remove('problem')
        if (exitCode != 0 && !options.returnStatus) {
            error("relayDeploy: ${options.target}: ${problem}${result.id ? ", deployment ${result.id}" : ''}")
        }
        return result
    } finally {
        dir(folder) {
            deleteDir()
        }
    }
}

private void stopUnfinished(Map options, String folder) {
    String id = textOf("${folder}/id").trim()
    if (!id || sawEnd(textOf("${folder}/result.json"))) {
        return
    }
    String target = options.target
    if (options.onInterrupt == 'detach') {
        echo "relayDeploy: ${target} goes on as ${id}. To follow it: relay attach ${id} --target ${target}"
        return
    }
    int exitCode = sh(label: "relay cancel ${id}", script: cancelScript(options, id), returnStatus: true)
    if (exitCode != 0) {
        echo "relayDeploy: could not cancel ${id} (exit ${exitCode}), and it may still be running. " +
            "To look, and to stop it: relay status ${id} --target ${target}; relay cancel ${id} --target ${target}"
    }
}

private String textOf(String file) {
    return fileExists(file) ? readFile(file: file, encoding: 'UTF-8') : ''
}

@NonCPS
private String mistakeIn(Map options) {
    List known = ['target', 'parameters', 'artifacts', 'key', 'tokenCommand', 'waitApproval', 'wait', 'timeout',
                  'onInterrupt', 'config', 'arguments', 'relay', 'returnStatus']
    for (name in options.keySet()) {
        if (!known.contains(name.toString())) {
            return "there is no option `${name}`; known are ${known.join(', ')}".toString()
        }
    }
    return options.target ? null : 'the option `target` is missing'
}

// With a first line like this, Jenkins runs the script as it is, and not by `sh -xe`, which would
// print each value twice. `exec` leaves relay alone as the process that Jenkins signals.
@NonCPS
private String deployScript(Map options, String folder) {
    List words = ['deploy', options.target]
    words.addAll(pairs('--param', options.parameters))
    words.addAll(pairs('--artifact', options.artifacts))
    words.addAll(place(options))
    Map flags = [waitApproval: '--wait-approval', wait: '--wait', timeout: '--timeout', onInterrupt: '--on-interrupt']
    for (flag in flags.entrySet()) {
        if (options[flag.key]) {
            words.addAll([flag.value, options[flag.key]])
        }
    }
    words.addAll(['--id-file', "${folder}/id", '--result-file', "${folder}/result.json", '--summary-file', "${folder}/summary.md"])
    words.addAll(options.arguments ?: [])
    return "#!/bin/sh\nmkdir -p ${quoted(folder)} || exit 125\nexec ${command(options, words)}\n".toString()
}

@NonCPS
private String cancelScript(Map options, String id) {
    return "#!/bin/sh\nexec ${command(options, ['cancel', id, '--target', options.target] + place(options))}\n".toString()
}

@NonCPS
private List place(Map options) {
    List words = []
    Map flags = [key: '--key', tokenCommand: '--token-command', config: '--config']
    for (flag in flags.entrySet()) {
        if (options[flag.key]) {
            words.addAll([flag.value, options[flag.key]])
        }
    }
    return words
}

@NonCPS
private List pairs(String flag, Map values) {
    List words = []
    for (entry in (values ?: [:]).entrySet()) {
        words.addAll([flag, "${entry.key}=${entry.value}"])
    }
    return words
}

@NonCPS
private String command(Map options, List words) {
    List all = [quoted(options.relay ?: 'relay')]
    for (word in words) {
        all.add(quoted(word))
    }
    return all.join(' ')
}

// One word of the shell, whatever it contains. Not withEnv: it replaces ${NAME} in its values.
@NonCPS
private String quoted(Object word) {
    return "'" + word.toString().replace("'", "'\\''") + "'"
}

// Whether relay followed the deployment to its end. It makes the result file empty at first, and at a
// second signal it leaves before the end, with no reason.
@NonCPS
private boolean sawEnd(String json) {
    Map result = json ? new JsonSlurperClassic().parseText(json) : null
    return result && !(result.decided_by == 'relay' && result.reason == null && result.exit_code in [130, 143])
}

// The words for an end that relay decided, as the GitHub action has them.
@NonCPS
private String word(int exitCode) {
    Map words = [119: 'usage', 120: 'refused', 121: 'never-started', 122: 'unknown', 123: 'incomplete', 124: 'timed-out',
                 130: 'cancelled', 143: 'cancelled']
    return words[exitCode] ?: 'fault'
}

@NonCPS
private Map outcomeOf(int exitCode, String id, String json, String summary) {
    Map result = json ? new JsonSlurperClassic().parseText(json) : [:]
    boolean isTools = result.decided_by == 'tool'
    String outcome = exitCode == 0 ? 'success' : isTools ? 'failure' : word(exitCode)
    String problem
    if (isTools) {
        String step = result.step ? " in the step `${result.step}`" : ''
        problem = "the tool ended with exit ${exitCode}${step}. relay worked; read the tool's output above"
    } else {
        String reason = result.reason ? ", ${result.reason}" : ''
        String said = result.message ? ": ${result.message}" : ''
        problem = "relay ended with exit ${exitCode} (${outcome}${reason})${said}. Its hints are above"
    }
    return [id: (result.deployment_id ?: id.trim()) ?: null, exitCode: exitCode, outcome: outcome,
            outputs: new HashMap(result.outputs ?: [:]), summary: summary, result: json, problem: problem.toString()]
}
