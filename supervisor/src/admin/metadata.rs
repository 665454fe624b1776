//! The `metadata` of an upload, as Cloudflare shapes it, and our `cloister` object in it.
//!
//! A field that is not listed here is refused by its name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::limits::Limits;
use crate::registry::{Allow, Contract, HttpSocket, Name, OutboundBinding};

/// Most bindings of a Worker.
pub const BINDINGS: usize = 128;
/// Longest text of one binding, bytes.
pub const BINDING_BYTES: usize = 32 * 1024;
/// All names and texts of a Worker's bindings and arguments together, bytes: they travel to the
/// Worker in one message.
pub const ENVIRONMENT_BYTES: usize = 96 * 1024;
/// Most arguments.
const ARGUMENTS: usize = 64;
/// Most tags.
const TAGS: usize = 32;
/// Longest tag or binding name, bytes.
const WORD_BYTES: usize = 64;

/// `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Name of the part that is the program.
    pub main_module: Option<String>,
    /// Bindings.
    #[serde(default)]
    pub bindings: Vec<BindingSpec>,
    /// Types of bindings to keep from the current version.
    #[serde(default)]
    pub keep_bindings: BTreeSet<String>,
    /// Tags; absent keeps those there are.
    pub tags: Option<BTreeSet<String>>,
    /// Limits of each invocation.
    #[serde(default)]
    pub limits: Limits,
    /// What is ours.
    #[serde(default)]
    pub cloister: Extension,
}

/// `metadata.cloister`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extension {
    /// How it answers; absent: `ipc` if the program has our SDK in it, else `http`.
    pub contract: Option<Contract>,
    /// `http`: whose socket.
    pub socket: Option<HttpSocket>,
    /// Arguments; `${PORT}` stands for the port.
    pub args: Vec<String>,
    /// What it asks for beyond the base sandbox.
    pub allow: BTreeSet<Allow>,
    /// Most processes; absent: 1.
    pub instances: Option<u32>,
    /// Most invocations of a process at a time; absent: the sandbox policy's ceiling.
    pub concurrency: Option<u32>,
    /// Resources of each process.
    pub resources: ResourcesSpec,
    /// Name of the part that is a tar archive of files for `/app`.
    pub files: Option<String>,
}

/// `PATCH settings`: what is given replaces what is there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// All bindings.
    pub bindings: Option<Vec<BindingSpec>>,
    /// Types of bindings to keep besides `bindings`.
    #[serde(default)]
    pub keep_bindings: BTreeSet<String>,
    /// All tags.
    pub tags: Option<BTreeSet<String>>,
    /// All limits.
    pub limits: Option<Limits>,
    /// What is ours.
    #[serde(default)]
    pub cloister: ExtensionPatch,
}

/// `cloister` of a `PATCH settings`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtensionPatch {
    /// As in [`Extension`].
    pub contract: Option<Contract>,
    /// As in [`Extension`].
    pub socket: Option<HttpSocket>,
    /// As in [`Extension`].
    pub args: Option<Vec<String>>,
    /// As in [`Extension`].
    pub allow: Option<BTreeSet<Allow>>,
    /// As in [`Extension`].
    pub instances: Option<u32>,
    /// As in [`Extension`].
    pub concurrency: Option<u32>,
    /// What is given replaces what is there.
    pub resources: ResourcesSpec,
}

/// Resources of each process; what is absent is the sandbox policy's default.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesSpec {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Percent of one core.
    pub cpu_percent: Option<u32>,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: Option<u64>,
}

/// One binding as it is sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BindingSpec {
    /// Text.
    PlainText {
        /// Its name.
        name: String,
        /// The text.
        text: String,
    },
    /// Secret text.
    SecretText {
        /// Its name.
        name: String,
        /// The text.
        text: String,
    },
    /// JSON.
    Json {
        /// Its name.
        name: String,
        /// The value.
        json: serde_json::Value,
    },
    /// Dispatch to a namespace.
    DispatchNamespace {
        /// Its name.
        name: String,
        /// The namespace.
        namespace: Name,
        /// The outbound Worker.
        outbound: Option<OutboundSpec>,
    },
    /// Another Worker of the account.
    Service {
        /// Its name.
        name: String,
        /// The Worker.
        service: Name,
    },
    /// The binding of that name of the current version.
    Inherit {
        /// Its name.
        name: String,
    },
}

impl BindingSpec {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::PlainText { name, .. }
            | Self::SecretText { name, .. }
            | Self::Json { name, .. }
            | Self::DispatchNamespace { name, .. }
            | Self::Service { name, .. }
            | Self::Inherit { name } => name,
        }
    }
}

/// `outbound` of a `dispatch_namespace` binding.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundSpec {
    worker: OutboundWorker,
    #[serde(default)]
    params: Vec<Param>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundWorker {
    service: Name,
}

/// A parameter, by name alone or as an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Param {
    Name(String),
    Object(ParamObject),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamObject {
    name: String,
}

impl OutboundSpec {
    /// The stored form.
    pub fn into_binding(self) -> Result<OutboundBinding, ApiError> {
        let names = self.params.into_iter().map(|param| match param {
            Param::Name(name) | Param::Object(ParamObject { name }) => name,
        });
        let params: Vec<_> = names.collect();
        if params.len() > 32 || params.iter().any(|name| !word(name)) {
            return Err(ApiError::invalid(
                "bindings: outbound.params: at most 32 names of letters, digits and _",
            ));
        }
        Ok(OutboundBinding { worker: self.worker.service.shared(), params })
    }
}

/// Parses JSON; the error names the field.
pub fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { what.to_owned() } else { format!("{what}.{path}") };
        ApiError::invalid(format!("{path}: {}", error.inner()))
    })?;
    deserializer.end().map_err(|error| ApiError::invalid(format!("{what}: {error}")))?;
    Ok(value)
}

/// A name for a binding or parameter: `[A-Za-z_][A-Za-z0-9_]*`, at most 64 bytes.
fn word(name: &str) -> bool {
    name.len() <= WORD_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Variables that the platform itself sets.
const RESERVED: [&str; 9] =
    ["PORT", "HOME", "TMPDIR", "LISTEN_FDS", "LISTEN_PID", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PATH"];

/// Checks a binding's name: a word, and none that the platform uses itself.
pub fn binding_name(name: &str) -> Result<(), ApiError> {
    if !word(name) {
        let shown = name.chars().take(80).collect::<String>();
        return Err(ApiError::invalid(format!(
            "bindings: {shown:?} is not a name: at most {WORD_BYTES} letters, digits and _, the first no digit"
        )));
    }
    let upper = name.to_ascii_uppercase();
    if RESERVED.contains(&upper.as_str()) || upper.starts_with("CLOISTER_") {
        return Err(ApiError::invalid(format!("bindings: {name} is set by the platform itself")));
    }
    Ok(())
}

/// Checks the bindings of one upload: names, uniqueness, sizes.
pub fn check_bindings(specs: &[BindingSpec]) -> Result<(), ApiError> {
    if specs.len() > BINDINGS {
        return Err(ApiError::invalid(format!("bindings: more than {BINDINGS}")));
    }
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for spec in specs {
        let name = spec.name();
        binding_name(name)?;
        // Host names of bindings don't know case.
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), name) {
            return Err(ApiError::invalid(format!("bindings: {other} and {name} are the same name")));
        }
        if let BindingSpec::PlainText { text, .. } | BindingSpec::SecretText { text, .. } = spec {
            binding_text(name, text)?;
        }
    }
    Ok(())
}

/// Checks the text of a binding.
pub fn binding_text(name: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > BINDING_BYTES {
        return Err(ApiError::too_large(format!("binding {name}: more than {BINDING_BYTES} bytes")));
    }
    if text.contains('\0') {
        return Err(ApiError::invalid(format!("binding {name}: holds a zero byte")));
    }
    Ok(())
}

/// Checks tags.
pub fn check_tags(tags: &BTreeSet<String>) -> Result<(), ApiError> {
    let good = |tag: &String| {
        !tag.is_empty()
            && tag.len() <= WORD_BYTES
            && tag.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b':' | b'&'))
    };
    if tags.len() <= TAGS && tags.iter().all(good) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "tags: at most {TAGS}, each 1 to {WORD_BYTES} visible ASCII characters, none of them , : &"
    )))
}

/// Checks arguments.
pub fn check_args(args: &[String]) -> Result<(), ApiError> {
    let bytes: usize = args.iter().map(String::len).sum();
    if args.len() > ARGUMENTS || bytes > BINDING_BYTES || args.iter().any(|arg| arg.contains('\0')) {
        return Err(ApiError::invalid(format!(
            "cloister.args: at most {ARGUMENTS}, {BINDING_BYTES} bytes together, no zero byte"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong(json: &str) -> String {
        parse::<Metadata>("metadata", json.as_bytes()).unwrap_err().message
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        assert!(wrong(r#"{"compatibility_date":"2026-01-01"}"#).starts_with(
            "metadata.compatibility_date: unknown field `compatibility_date`, expected one of `main_module`"
        ));
        let kv = wrong(r#"{"bindings":[{"type":"kv_namespace","name":"A","namespace_id":"x"}]}"#);
        assert!(kv.starts_with("metadata.bindings[0]") && kv.contains("`kv_namespace`"), "{kv}");
        assert!(wrong(r#"{"cloister":{"walls":[]}}"#).starts_with("metadata.cloister.walls: unknown field"));
        let environment = r#"{"bindings":[{"type":"service","name":"A","service":"x","environment":"y"}]}"#;
        assert!(wrong(environment).contains("`environment`"), "{}", wrong(environment));
        assert!(wrong("{} {}").contains("trailing"));
    }

    #[test]
    fn cloudflares_shapes_of_outbound() {
        let json = r#"{"bindings":[{"type":"dispatch_namespace","name":"D","namespace":"n",
            "outbound":{"worker":{"service":"out"},"params":[{"name":"a"},"b"]}}]}"#;
        let metadata: Metadata = parse("metadata", json.as_bytes()).unwrap();
        let [BindingSpec::DispatchNamespace { outbound: Some(outbound), .. }] = metadata.bindings.as_slice()
        else {
            panic!()
        };
        assert_eq!(outbound.clone().into_binding().unwrap().params, ["a", "b"]);
    }

    #[test]
    fn names_of_bindings() {
        for bad in ["", "1A", "A-B", "PORT", "http_proxy", "CLOISTER_X", "É"] {
            assert!(binding_name(bad).is_err(), "{bad}");
        }
        let text = |name: &str| BindingSpec::PlainText { name: name.to_owned(), text: String::new() };
        assert!(check_bindings(&[text("A"), text("B")]).is_ok());
        assert!(check_bindings(&[text("A"), text("a")]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(json in "[\\PC]{0,200}") {
            let _ = parse::<Metadata>("metadata", json.as_bytes());
        }

        #[test]
        fn never_panics_on_near_misses(
            key in "(main_module|bindings|keep_bindings|tags|limits|cloister|x)",
            value in r#"(null|1|-1|1e999|"a"|\[\]|\{\}|\[\{"type":"json","name":"A","json":[1,null,{}]\}\])"#,
        ) {
            let json = format!(r#"{{"{key}":{value}}}"#);
            let _ = parse::<Metadata>("metadata", json.as_bytes());
        }
    }
}
