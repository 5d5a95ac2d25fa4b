//! Which rights the account of a program lacks. Each is told once in the log and, for as long as it is so, by `/readyz`, which
//! passes all the same: whoever can do without does, and whoever cannot is unready for that.
//!
//! # Permissions
//!
//! `create` on `selfsubjectrulesreviews` and `selfsubjectaccessreviews` of `authorization.k8s.io`, which every account has
//! (`system:basic-user`). Where it has not, nothing is told here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::http::Health;
use crate::refusals::{LATE, Refusals};

/// The check that says what is missing.
const CHECK: &str = "rights";

/// How often it is asked for: what was granted since is told no more. Sooner at first, as an API server that has just begun
/// knows few roles.
const LOOK: Duration = Duration::from_secs(900);
/// The same where nobody answers.
const AGAIN: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);

/// No namespace has a dot in its name: what holds there holds everywhere.
const NOWHERE: &str = "berth.dev";

/// A right that a program has use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The namespace in which it is needed; none for all of them, and for objects that are in none.
    pub namespace: Option<String>,
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource, with a subresource behind a slash.
    pub resource: &'static str,
    /// The only object.
    pub name: Option<String>,
    /// What is to be done.
    pub verbs: &'static [&'static str],
    /// What is lost without it.
    pub without: &'static str,
}

impl Right {
    /// How these verbs of it are given, and what is lost without.
    pub fn rule(&self, verbs: &[&str]) -> String {
        let name = self.name.as_ref().map(|name| format!(", resourceNames: [{name}]"));
        let place = self.namespace.as_ref().map(|place| format!(", in the namespace {place}"));
        format!(
            "add {{apiGroups: [\"{}\"], resources: [{}]{}, verbs: [{}]}}{}: without it {}",
            self.group,
            self.resource,
            name.unwrap_or_default(),
            verbs.join(", "),
            place.unwrap_or_default(),
            self.without
        )
    }

    /// Which of its verbs these rules do not give.
    fn missing(&self, rules: &[ResourceRule]) -> Vec<&'static str> {
        let gives = |verb: &str| rules.iter().any(|rule| self.is_given(rule, verb));
        self.verbs.iter().copied().filter(|verb| !gives(verb)).collect()
    }

    fn is_given(&self, rule: &ResourceRule, verb: &str) -> bool {
        let has =
            |list: &[String], wanted: &str| list.iter().any(|one| one == wanted || one == "*");
        let names = rule.resource_names.as_deref().unwrap_or_default();
        let subresource = self.resource.split_once('/').map(|(_, part)| format!("*/{part}"));
        let resources = rule.resources.as_deref().unwrap_or_default();
        has(&rule.verbs, verb)
            && has(rule.api_groups.as_deref().unwrap_or_default(), self.group)
            && (has(resources, self.resource)
                || subresource.is_some_and(|part| resources.contains(&part)))
            && (names.is_empty() || self.name.as_ref().is_some_and(|name| names.contains(name)))
    }
}

/// Tells which of these rights the account lacks, as long as the program runs.
pub async fn tell(client: Client, rights: Vec<Right>, health: Health) {
    let mut told = BTreeSet::new();
    let mut refusals = Refusals::default();
    loop {
        let pause = match tokio::time::timeout(TIMEOUT, lacking(&client, &rights)).await {
            Ok(Ok(lacking)) if lacking.is_empty() => {
                refusals.end();
                told.clear();
                health.forget(CHECK);
                LOOK
            }
            Ok(Ok(lacking)) => {
                let pause = refusals.again();
                if refusals.are_doubted() {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                let lines: Vec<String> =
                    lacking.iter().map(|(right, verbs)| right.rule(verbs)).collect();
                for line in lines.iter().filter(|line| !told.contains(*line)) {
                    tracing::warn!("the account lacks a right: {line}");
                }
                // A line for each.
                health.missing(CHECK, lines.join(&format!("\n{CHECK}: ")));
                told = lines.into_iter().collect();
                if pause < LATE { pause } else { LOOK }
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                tracing::debug!("which rights the account has is not told: {}", status.message);
                LOOK
            }
            Ok(Err(_)) | Err(_) => AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

/// The rights that are not given, each with the verbs.
async fn lacking<'r>(
    client: &Client,
    rights: &'r [Right],
) -> kube::Result<Vec<(&'r Right, Vec<&'static str>)>> {
    let mut rules: BTreeMap<&str, Vec<ResourceRule>> = BTreeMap::new();
    let mut lacking = Vec::new();
    for right in rights {
        let place = right.namespace.as_deref().unwrap_or(NOWHERE);
        if !rules.contains_key(place) {
            rules.insert(place, rules_in(client, place).await?);
        }
        // Some authorizers answer questions and name no rules.
        let mut verbs = Vec::new();
        for verb in right.missing(&rules[place]) {
            if !may(client, right, verb).await? {
                verbs.push(verb);
            }
        }
        if !verbs.is_empty() {
            lacking.push((right, verbs));
        }
    }
    Ok(lacking)
}

async fn rules_in(client: &Client, namespace: &str) -> kube::Result<Vec<ResourceRule>> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..Default::default() };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.map(|status| status.resource_rules).unwrap_or_default())
}

async fn may(client: &Client, right: &Right, verb: &str) -> kube::Result<bool> {
    let (resource, part) = match right.resource.split_once('/') {
        Some((resource, part)) => (resource, Some(part.to_owned())),
        None => (right.resource, None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: part,
        verb: Some(verb.to_owned()),
        namespace: right.namespace.clone(),
        name: right.name.clone(),
        ..Default::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const EVENTS: Right = Right {
        namespace: None,
        group: "events.k8s.io",
        resource: "events",
        name: None,
        verbs: &["create", "patch"],
        without: "no Event tells what is wrong",
    };

    fn key() -> Right {
        Right {
            namespace: Some("kube-system".to_owned()),
            group: "",
            resource: "secrets",
            name: Some("key".to_owned()),
            verbs: &["get", "update"],
            without: "there is no key",
        }
    }

    fn rules(rules: Value) -> Vec<ResourceRule> {
        serde_json::from_value(rules).unwrap()
    }

    #[test]
    fn a_rule_gives_what_it_names_and_a_star_everything() {
        let gives = |right: &Right, rule: Value| right.missing(&rules(json!([rule])));
        let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
        let none: [&str; 0] = [];
        assert_eq!(gives(&EVENTS, rule("events.k8s.io", "events", &["create", "patch"])), none);
        assert_eq!(gives(&EVENTS, rule("*", "*", &["*"])), none);
        assert_eq!(gives(&EVENTS, rule("", "events", &["*"])), ["create", "patch"]);
        assert_eq!(gives(&EVENTS, rule("events.k8s.io", "events", &["create"])), ["patch"]);
        let status = Right { resource: "services/status", group: "", ..EVENTS };
        assert_eq!(gives(&status, rule("", "services", &["*"])), ["create", "patch"]);
        assert_eq!(gives(&status, rule("", "*/status", &["*"])), none);
        let mut named = rule("", "secrets", &["get", "update"]);
        named["resourceNames"] = json!(["other"]);
        assert_eq!(gives(&key(), named.clone()), ["get", "update"]);
        named["resourceNames"] = json!(["other", "key"]);
        assert_eq!(gives(&key(), named), none);
    }

    #[test]
    fn what_is_to_be_added_stands_there_as_it_is_written() {
        assert_eq!(
            EVENTS.rule(&["patch"]),
            "add {apiGroups: [\"events.k8s.io\"], resources: [events], verbs: [patch]}: without it no Event tells what is wrong"
        );
        assert_eq!(
            key().rule(&["get"]),
            "add {apiGroups: [\"\"], resources: [secrets], resourceNames: [key], verbs: [get]}, in the namespace kube-system: \
             without it there is no key"
        );
    }

    /// An API server that names these rules, and says yes to what `allows` has. What it was asked for.
    fn api(named: Value, allows: &'static [&'static str]) -> (Client, Arc<Mutex<Vec<String>>>) {
        api_that_begins(Duration::ZERO, named, allows)
    }

    /// The same, where it knows no rule for so long.
    fn api_that_begins(
        within: Duration,
        named: Value,
        allows: &'static [&'static str],
    ) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        let begun = tokio::time::Instant::now() + within;
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let seen = seen.clone();
            let named = if tokio::time::Instant::now() < begun { json!([]) } else { named.clone() };
            async move {
                let path = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let sent = request.into_body().collect_bytes().await?;
                let sent: Value = serde_json::from_slice(&sent)?;
                let verb = sent["spec"]["resourceAttributes"]["verb"].as_str().unwrap_or_default();
                seen.lock().unwrap().push(format!("{path} {verb}"));
                let status = match path.as_str() {
                    "selfsubjectrulesreviews" => {
                        json!({ "incomplete": true, "nonResourceRules": [], "resourceRules": named })
                    }
                    _ => json!({ "allowed": allows.contains(&verb) }),
                };
                let body = json!({ "metadata": {}, "spec": sent["spec"], "status": status });
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::builder().status(201).body(body)?)
            }
        });
        (Client::new(service, "default"), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_says_each_that_is_missing_on_a_line_of_its_own_and_passes() {
        let (client, asked) = api(json!([]), &["patch", "get"]);
        let health = Health::default();
        let telling = tell(client, vec![EVENTS, key()], health.clone());
        let _ = tokio::time::timeout(Duration::from_secs(60), telling).await;
        let [(CHECK, said)] = &health.missing_checks()[..] else { panic!("{health:?}") };
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("[events], verbs: [create]}"), "{lines:?}");
        assert!(lines[1].starts_with("rights: add") && lines[1].contains("[update]}"), "{lines:?}");
        assert_eq!(lines.len(), 2);
        assert!(health.unready_checks(std::time::Instant::now()).is_empty());
        // Twice in doubt, then 1, 2, 4 ... seconds apart, each of six.
        assert_eq!(asked.lock().unwrap().len(), 8 * 6, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_api_server_lacks_that_has_just_begun_is_not_told() {
        let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        let (client, _) = api_that_begins(Duration::from_millis(1500), all, &[]);
        let health = Health::default();
        let mut telling = std::pin::pin!(tell(client, vec![EVENTS], health.clone()));
        for _ in 0..40 {
            let _ = tokio::time::timeout(Duration::from_millis(100), &mut telling).await;
            assert_eq!(health.missing_checks(), []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_all_it_needs_costs_a_request_for_each_place_and_quarter_of_an_hour() {
        let (client, asked) =
            api(json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]), &[]);
        let health = Health::default();
        let telling = tell(client, vec![EVENTS, key(), EVENTS], health.clone());
        let _ = tokio::time::timeout(Duration::from_secs(3000), telling).await;
        assert_eq!(health.missing_checks(), []);
        assert_eq!(asked.lock().unwrap().len(), 8, "{asked:?}");
    }
}
