//! `berth-ccm import-eip`: elastic IPs of Berth's ancestors as EipBindings, with the addresses that they have. Reads,
//! prints, and changes nothing.
//!
//! | kind | address | machine |
//! |---|---|---|
//! | `EipBinding` of `extension.lucheng0127/v1` (kube-eip) | `spec.eipAddr` | `spec.vmiName` |
//! | `EipBinding` of `virteip.github.com/v1` (virteip-operator) | `spec.eip` | `spec.vmi` |

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use berth_api::Quoted;
use berth_runtime::watch::chain;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, TypeMeta};
use serde_json::{Value, json};

use crate::objects::Objects;

/// How the program ends; scripts rely on it.
pub const EXIT_CODES: &str = "Exit code:\n  0  every object was converted\n  \
    1  some were not; each is named on standard error, and the others are printed\n  \
    2  there is nothing to convert: the file or the cluster cannot be read";

/// The ancestors' groups, with the fields for the address and the machine.
const ANCESTORS: [(&str, &str, &str); 2] =
    [("extension.lucheng0127", "eipAddr", "vmiName"), ("virteip.github.com", "eip", "vmi")];

/// What to convert.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The file with the objects, in YAML or as kubectl prints them; `-` is the standard input.
    #[arg(value_name = "EIPBINDINGS.yaml", default_value = "-")]
    file: PathBuf,
    /// Read them in a cluster instead: a kubeconfig file, or `current` for that of kubectl [default: the file is read]
    #[arg(long, value_name = "KUBECONFIG", conflicts_with = "file")]
    from: Option<PathBuf>,
}

/// What became of the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Ours, in the order of the others.
    pub bindings: Vec<Value>,
    /// Those that cannot be converted.
    pub bad: Vec<Bad>,
}

/// An object that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its namespace and name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EipBinding {}: {}", self.name, self.problem)
    }
}

/// Prints the converted objects and ends as [`EXIT_CODES`] says.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let import = match read(arguments).await {
        Ok(objects) => convert(&objects),
        Err(error) => {
            eprintln!("berth-ccm import-eip: {}", chain(error.as_ref()));
            return ExitCode::from(2);
        }
    };
    for bad in &import.bad {
        eprintln!("berth-ccm import-eip: {bad}");
    }
    // Whoever closed the pipe has read enough.
    _ = write!(io::stdout(), "{}", yaml(&import.bindings));
    ExitCode::from(u8::from(!import.bad.is_empty()))
}

/// Converts what is one of the ancestors' objects; others are passed over. What two have is the older one's: the API server says
/// which that is, and nobody else.
pub fn convert(objects: &[Value]) -> Import {
    let (mut bindings, mut bad) = (Vec::new(), Vec::new());
    // Who has a name, an address, a machine already.
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut by_age: Vec<(usize, &Value)> = objects.iter().enumerate().collect();
    by_age.sort_by_key(|(_, object)| object["metadata"]["creationTimestamp"].as_str());
    for (place, object) in by_age {
        let Some(found) = ancestor(object) else { continue };
        let name = full_name(object);
        let source = format!("{name} ({})", object["apiVersion"].as_str().unwrap_or_default());
        let problem = match found {
            Ok((eip, vmi)) => {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                let uses = [
                    format!("the name {name}"),
                    format!("the address {eip}"),
                    format!("the machine {namespace}/{vmi}"),
                ];
                match uses.iter().find_map(|used| Some((used, taken.get(used)?))) {
                    None => {
                        taken.extend(uses.map(|used| (used, source.clone())));
                        bindings.push((place, binding(object, eip, &vmi)));
                        continue;
                    }
                    Some((used, by)) => format!("{used} is that of EipBinding {by} already"),
                }
            }
            Err(problem) => problem,
        };
        bad.push((place, Bad { name: source, problem }));
    }
    bindings.sort_by_key(|(place, _)| *place);
    bad.sort_by_key(|(place, _)| *place);
    Import { bindings: of_each(bindings), bad: of_each(bad) }
}

fn of_each<T>(listed: Vec<(usize, T)>) -> Vec<T> {
    listed.into_iter().map(|(_, found)| found).collect()
}

/// The address and the machine that an ancestor's object names, or what is wrong with it; `None` for other objects.
fn ancestor(object: &Value) -> Option<Result<(IpAddr, String), String>> {
    let group = object["apiVersion"].as_str()?.split_once('/')?.0;
    let (_, eip, vmi) = ANCESTORS.into_iter().find(|(known, ..)| *known == group)?;
    if object["kind"] != "EipBinding" {
        return None;
    }
    let text = |field: &str| match &object["spec"][field] {
        Value::String(text) if !text.is_empty() => Ok(text.as_str()),
        Value::Null => Err(format!("field `spec.{field}` is missing")),
        other => Err(format!(
            "field `spec.{field}`: value {} is not accepted; accepted is a text",
            Quoted::of(&other.to_string())
        )),
    };
    Some(text(eip).and_then(|address| {
        let address = address.trim().parse().map_err(|_| {
            format!(
                "field `spec.{eip}`: value {} is not accepted; accepted is an IPv4 or IPv6 address",
                Quoted::of(address)
            )
        })?;
        Ok((address, text(vmi)?.to_owned()))
    }))
}

fn binding(object: &Value, eip: IpAddr, vmi: &str) -> Value {
    let mut metadata = json!({ "name": object["metadata"]["name"] });
    if let Some(namespace) = object["metadata"]["namespace"].as_str() {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "EipBinding",
        "metadata": metadata,
        "spec": { "vmi": vmi, "eip": eip },
    })
}

fn full_name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or("without a name");
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// One document for each object.
fn yaml(objects: &[Value]) -> String {
    let document = |object: &Value| {
        let text = serde_saphyr::to_string(object).unwrap_or_else(|_| object.to_string());
        format!("---\n{}\n", text.trim_end())
    };
    objects.iter().map(document).collect()
}

async fn read(arguments: &Arguments) -> Result<Vec<Value>> {
    let Arguments { file, from } = arguments;
    if let Some(kubeconfig) = from {
        return in_cluster(kubeconfig).await;
    }
    let name = file.display();
    let mut text = String::new();
    match file.as_path() {
        path if path == Path::new("-") => io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|read| text = read),
    }
    .with_context(|| format!("cannot read `{name}`"))?;
    let objects = Objects::read(&text)
        .map_err(Error::msg)
        .with_context(|| format!("cannot use `{name}`: it is neither YAML nor JSON"))?;
    Ok(objects.all().cloned().collect())
}

async fn in_cluster(kubeconfig: &Path) -> Result<Vec<Value>> {
    let named = (kubeconfig != Path::new("current")).then_some(kubeconfig);
    let config = berth_runtime::client::configure(named).await?;
    let client = berth_runtime::client::connect(config)?;
    let mut objects = Vec::new();
    for (group, ..) in ANCESTORS {
        let kind = GroupVersionKind::gvk(group, "v1", "EipBinding");
        let resource = ApiResource::from_gvk_with_plural(&kind, "eipbindings");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                for mut object in list.items {
                    // Not every API server repeats what is said of the whole list.
                    object.types.get_or_insert_with(|| TypeMeta {
                        api_version: resource.api_version.clone(),
                        kind: resource.kind.clone(),
                    });
                    objects.push(serde_json::to_value(object)?);
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot list eipbindings.{group}"));
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r"
apiVersion: extension.lucheng0127/v1
kind: EipBinding
metadata: { name: web, namespace: shop }
spec: { eipAddr: 192.0.2.7, vmiName: web-vm, currentHyper: node-1, phase: Ready }
---
apiVersion: v1
kind: List
items:
  - apiVersion: virteip.github.com/v1
    kind: EipBinding
    metadata: { name: db, namespace: shop, uid: 0-1, resourceVersion: '5' }
    spec: { eip: 2001:DB8::7, vmi: db-vm, jobHistory: 5 }
  - { apiVersion: v1, kind: ConfigMap, metadata: { name: other } }
";

    fn of(text: &str) -> Import {
        convert(&Objects::read(text).unwrap().all().cloned().collect::<Vec<_>>())
    }

    #[test]
    fn both_ancestors_objects_become_ours_with_the_same_addresses() {
        let import = of(OLD);
        assert_eq!(import.bad, []);
        assert_eq!(
            yaml(&import.bindings),
            "---\napiVersion: berth.dev/v1alpha1\nkind: EipBinding\nmetadata:\n  name: web\n  namespace: shop\n\
             spec:\n  eip: \"192.0.2.7\"\n  vmi: web-vm\n\
             ---\napiVersion: berth.dev/v1alpha1\nkind: EipBinding\nmetadata:\n  name: db\n  namespace: shop\n\
             spec:\n  eip: 2001:db8::7\n  vmi: db-vm\n"
        );
        // What is printed is what the type reads.
        for binding in import.bindings {
            serde_json::from_value::<berth_api::eip::EipBinding>(binding).unwrap();
        }
    }

    #[test]
    fn an_address_that_two_have_is_the_older_ones_whatever_its_namespace_is_called() {
        let object = |namespace: &str, year: u16| {
            json!({
                "apiVersion": "virteip.github.com/v1", "kind": "EipBinding",
                "metadata": { "namespace": namespace, "name": "web", "creationTimestamp": format!("{year}-01-01T00:00:00Z") },
                "spec": { "eip": "192.0.2.1", "vmi": "vm" },
            })
        };
        let import = convert(&[object("a", 2025), object("shop", 2024), object("z", 2026)]);
        let whose: Vec<_> =
            import.bindings.iter().map(|own| own["metadata"]["namespace"].clone()).collect();
        assert_eq!(whose, ["shop"]);
        let bad: Vec<_> =
            import.bad.iter().map(|bad| bad.name.split('/').next().unwrap()).collect();
        assert_eq!(bad, ["a", "z"]);
    }

    #[test]
    fn an_object_that_is_no_use_is_named_and_the_others_are_converted() {
        let object = |name: &str, spec: Value| json!({ "apiVersion": "virteip.github.com/v1", "kind": "EipBinding", "metadata": { "namespace": "shop", "name": name }, "spec": spec });
        let import = convert(&[
            object("a", json!({ "eip": "192.0.2.300", "vmi": "vm-a" })),
            object("b", json!({ "eip": "192.0.2.1" })),
            object("c", json!({ "eip": "192.0.2.1", "vmi": "vm-c" })),
            object("d", json!({ "eip": "192.0.2.1", "vmi": "vm-d" })),
            object("e", json!({ "eip": "192.0.2.2", "vmi": "vm-c" })),
            object("c", json!({ "eip": "192.0.2.3", "vmi": "vm-f" })),
            object("g", json!({ "eip": 7, "vmi": "vm-g" })),
        ]);
        assert_eq!(import.bindings.len(), 1);
        let told: Vec<String> = import.bad.iter().map(ToString::to_string).collect();
        let v = "(virteip.github.com/v1)";
        assert_eq!(
            told,
            [
                format!(
                    "EipBinding shop/a {v}: field `spec.eip`: value \"192.0.2.300\" is not accepted; accepted is an IPv4 or IPv6 address"
                ),
                format!("EipBinding shop/b {v}: field `spec.vmi` is missing"),
                format!(
                    "EipBinding shop/d {v}: the address 192.0.2.1 is that of EipBinding shop/c {v} already"
                ),
                format!(
                    "EipBinding shop/e {v}: the machine shop/vm-c is that of EipBinding shop/c {v} already"
                ),
                format!(
                    "EipBinding shop/c {v}: the name shop/c is that of EipBinding shop/c {v} already"
                ),
                format!(
                    "EipBinding shop/g {v}: field `spec.eip`: value \"7\" is not accepted; accepted is a text"
                ),
            ]
        );
    }
}
