//! OpenTelemetry: one trace for a deployment, if the usual variables name a collector. Off by
//! default, and free when off.
//!
//! The spans go as OTLP/HTTP with JSON, after the deployment's end. A collector that does not
//! answer costs ten seconds and a warning, never the exit code. Names follow the semantic
//! conventions for CI/CD (<https://opentelemetry.io/docs/specs/semconv/cicd/>).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_aws::fetch::Fetch;
use relay_protocol::request::TraceParent;
use serde_json::{Value, json};

/// Where the spans of one deployment go, and the trace to which they belong.
#[derive(Debug)]
pub(crate) struct Trace {
    url: String,
    headers: Vec<(String, String)>,
    service: String,
    trace_id: String,
    /// The span of the caller, if there is one.
    parent: Option<String>,
    /// The span of the whole deployment.
    span: String,
    began: SystemTime,
}

impl Trace {
    /// The trace that the environment asks for. `began` is when the command did, and `random` draws
    /// the bytes for new ids, which nobody needs while traces are off.
    pub(crate) fn of(
        variable: impl Fn(&str) -> Option<String>,
        began: SystemTime,
        random: impl FnOnce() -> Result<[u8; 24], String>,
    ) -> Result<Option<Self>, String> {
        let text = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let is_off = text("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || text("OTEL_TRACES_EXPORTER").is_some_and(|text| text != "otlp");
        let own = text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let shared = text("OTEL_EXPORTER_OTLP_ENDPOINT");
        let url = match (is_off, own, shared) {
            (true, ..) | (_, None, None) => return Ok(None),
            (_, Some(url), _) => url,
            (_, None, Some(base)) => format!("{}/v1/traces", base.trim_end_matches('/')),
        };
        let protocol = text("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| text("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if protocol.as_deref() == Some("grpc") {
            return Err("relay sends no traces by gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=http/json".to_owned());
        }
        let headers = text("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| text("OTEL_EXPORTER_OTLP_HEADERS"));
        let header =
            |pair: &str| pair.split_once('=').map(|(name, value)| (name.trim().to_owned(), decoded(value.trim())));
        let random = random()?;
        let caller: Option<TraceParent> = text("TRACEPARENT").and_then(|text| text.try_into().ok());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (trace_id, parent) = match caller.as_ref().map(|caller| caller.as_str().split('-').collect::<Vec<_>>()) {
            Some(parts) if parts.len() == 4 => (parts[1].to_owned(), Some(parts[2].to_owned())),
            _ => (hex(&random[..16]), None),
        };
        Ok(Some(Self {
            url,
            headers: headers.iter().flat_map(|all| all.split(',')).filter_map(header).collect(),
            service: text("OTEL_SERVICE_NAME").unwrap_or_else(|| "relay".to_owned()),
            trace_id,
            parent,
            span: hex(&random[16..]),
            began,
        }))
    }

    /// The context for the request, and so for the tool: its spans are children of the
    /// deployment's.
    pub(crate) fn context(&self) -> Option<TraceParent> {
        format!("00-{}-{}-01", self.trace_id, self.span).try_into().ok()
    }

    /// Sends the spans of a deployment with this result, as `--result-file` has it.
    ///
    /// # Errors
    ///
    /// Why the collector does not have them.
    pub(crate) async fn send(&self, result: &Value) -> Result<(), String> {
        let body = self.document(result).to_string();
        let fetch = Fetch::from_environment().map_err(|error| error.to_string())?;
        fetch.post_json(&self.url, &self.headers, body).await.map_err(|error| error.to_string())
    }

    /// The document of OTLP: a span for the deployment, and one for each of its phases.
    fn document(&self, result: &Value) -> Value {
        let at = |milliseconds: u64| {
            let time = self.began + Duration::from_millis(milliseconds);
            time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
        };
        let phase = |name: &str| result["milliseconds"][name].as_u64();
        let end = phase("finished")
            .unwrap_or_else(|| u64::try_from(self.began.elapsed().unwrap_or_default().as_millis()).unwrap_or_default());
        let text = |value: &Value| json!({ "stringValue": value.as_str().unwrap_or_default() });
        let attribute = |key: &str, value: Value| json!({ "key": key, "value": value });
        let outcome = outcome(result);
        let mut attributes = vec![
            attribute("cicd.pipeline.task.name", text(&result["target"])),
            attribute("cicd.pipeline.task.type", json!({ "stringValue": "deploy" })),
            attribute("cicd.pipeline.task.run.id", text(&result["deployment_id"])),
            attribute("cicd.pipeline.task.run.result", json!({ "stringValue": outcome })),
            attribute("process.exit.code", json!({ "intValue": result["exit_code"].to_string() })),
        ];
        if result["reason"].is_string() {
            attributes.push(attribute("relay.reason", text(&result["reason"])));
        }
        let code = if outcome == "success" { 1 } else { 2 };
        let mut spans = vec![json!({
            "traceId": self.trace_id, "spanId": self.span, "parentSpanId": self.parent.clone().unwrap_or_default(),
            "name": format!("deploy {}", result["target"].as_str().unwrap_or_default()), "kind": 3,
            "startTimeUnixNano": at(0), "endTimeUnixNano": at(end),
            "attributes": attributes, "status": { "code": code },
        })];
        let phases =
            [("admission", "published", "admitted"), ("start", "admitted", "started"), ("run", "started", "finished")];
        for (number, (name, from, to)) in phases.into_iter().enumerate() {
            if let (Some(from), Some(to)) = (phase(from), phase(to)) {
                spans.push(json!({
                    "traceId": self.trace_id, "spanId": self.inner(number), "parentSpanId": self.span,
                    "name": name, "kind": 1, "startTimeUnixNano": at(from), "endTimeUnixNano": at(to),
                }));
            }
        }
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                attribute("service.name", json!({ "stringValue": self.service })),
                attribute("service.version", json!({ "stringValue": env!("CARGO_PKG_VERSION") })),
            ] },
            "scopeSpans": [{ "scope": { "name": "relay" }, "spans": spans }],
        }] })
    }

    /// The id of a phase's span: the deployment's, counted on.
    fn inner(&self, number: usize) -> String {
        let id = u64::from_str_radix(&self.span, 16).unwrap_or_default();
        format!("{:016x}", id.wrapping_add(number as u64 + 1).max(1))
    }
}

/// The result in the words of the conventions.
fn outcome(result: &Value) -> &'static str {
    match (result["exit_code"].as_u64(), result["decided_by"].as_str(), result["reason"].as_str()) {
        (Some(0), ..) => "success",
        (_, Some("tool"), _) => "failure",
        (_, _, Some("cancelled")) | (Some(130 | 143), ..) => "cancellation",
        (_, _, Some("timed_out")) | (Some(124), ..) => "timeout",
        (Some(120), ..) => "skip",
        _ => "error",
    }
}

/// A value of a header list, whose odd bytes are percent-encoded.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code.filter(|_| byte == b'%') {
            Some(value) => {
                out.push(value);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn trace(set: &[(&str, &str)]) -> Result<Option<Trace>, String> {
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Trace::of(variable, UNIX_EPOCH + Duration::from_secs(1), || Ok([1; 24]))
    }

    #[test]
    fn the_usual_variables_turn_it_on_and_off() {
        assert!(trace(&[]).unwrap().is_none() && trace(&[("TRACEPARENT", CALLER)]).unwrap().is_none());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector/");
        assert_eq!(trace(&[endpoint]).unwrap().unwrap().url, "https://collector/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/x");
        assert_eq!(trace(&[endpoint, own]).unwrap().unwrap().url, "https://traces/x");
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(trace(&[endpoint, off]).unwrap().is_none());
        }
        assert!(trace(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).is_err());
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20eA==, odd, b=100%");
        let found = trace(&[endpoint, headers]).unwrap().unwrap().headers;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found, [pair("authorization", "Basic eA=="), pair("b", "100%")]);
    }

    #[test]
    fn the_deployment_is_a_child_of_the_caller_and_the_parent_of_the_tool() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector");
        let trace = trace(&[endpoint, ("TRACEPARENT", CALLER)]).unwrap().unwrap();
        let context = trace.context().unwrap();
        assert_eq!(context.as_str(), "00-0af7651916cd43dd8448eb211c80319c-0101010101010101-01");
        let result = json!({
            "target": "a/b", "deployment_id": "id", "exit_code": 3, "decided_by": "tool", "reason": null,
            "milliseconds": { "published": 10, "admitted": 20, "started": null, "finished": 500 },
        });
        let document = trace.document(&result);
        let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 2, "the deployment and its admission");
        assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
        assert_eq!(
            (&spans[0]["startTimeUnixNano"], &spans[0]["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("1500000000"))
        );
        assert_eq!(spans[0]["status"]["code"], 2);
        assert_eq!((&spans[1]["name"], &spans[1]["parentSpanId"]), (&json!("admission"), &json!("0101010101010101")));
        assert_eq!(spans[1]["spanId"], "0101010101010102");
        assert!(
            document
                .to_string()
                .contains(r#"{"key":"cicd.pipeline.task.run.result","value":{"stringValue":"failure"}}"#)
        );
    }
}
