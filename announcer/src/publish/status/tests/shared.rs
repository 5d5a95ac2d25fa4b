//! What is written where several nodes announce a Service at once.

use super::*;

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// What node `a` writes of a Service that shows `shown` and names `host`, where it announces these and any node `could` those.
fn written(
    shown: &[&str],
    host: Option<&str>,
    announced: &[&str],
    could: &[&str],
) -> Option<(Vec<String>, Option<String>)> {
    let mut web = service(&BOTH);
    let published = shown.iter().map(|text| Ingress::vip(address(text), &web.ports));
    web.published = published.collect();
    web.vip_host = host.map(str::to_owned);
    let set = |texts: &[&str]| texts.iter().map(|text| address(text)).collect();
    let shared: Option<BTreeSet<IpAddr>> = Some(set(could));
    let announce = could.iter().map(|text| address(text)).collect();
    let verdicts = [(name(), Verdict { announce, shared, ..Verdict::default() })].into();
    let updates = updates(&cluster(web), &verdicts, &answering(announced, announced), "a");
    let update = updates.into_iter().next()?;
    let publication = update.publication?;
    let gives_way = publication.vip_host.is_none() && !publication.ingress.is_empty();
    let waits = if gives_way { GIVING_WAY } else { Duration::ZERO };
    assert_eq!(update.waits, Some(waits), "each has its turn");
    let shown = publication.ingress.iter().map(|ingress| ingress.ip.clone()).collect();
    Some((shown, publication.vip_host))
}

fn shows(addresses: &[&str], host: Option<&str>) -> Option<(Vec<String>, Option<String>)> {
    let shown = addresses.iter().map(|text| (*text).to_owned()).collect();
    Some((shown, host.map(str::to_owned)))
}

#[test]
fn whoever_announces_first_writes_it_and_the_others_find_it_true() {
    assert_eq!(written(&[], None, &BOTH, &BOTH), shows(&BOTH, Some("a")));
    assert_eq!(written(&BOTH, Some("b"), &BOTH, &BOTH), None);
    assert_eq!(written(&[], None, &[], &BOTH), None, "no router knows it");
}

#[test]
fn nobody_takes_out_what_others_announce() {
    let [v4, v6] = BOTH;
    assert_eq!(
        written(&BOTH, Some("b"), &[v4], &BOTH),
        None,
        "b has a session for the other family"
    );
    assert_eq!(
        written(&[v6], Some("b"), &[v4], &BOTH),
        shows(&BOTH, Some("a")),
        "it adds to it in its own name alone"
    );
    assert_eq!(written(&BOTH, Some("b"), &[v4], &[v4]), shows(&[v4], Some("b")), "nobody could");
}

#[test]
fn who_is_named_and_announces_nothing_gives_way_and_another_takes_its_place() {
    assert_eq!(written(&BOTH, Some("a"), &[], &BOTH), shows(&BOTH, None));
    assert_eq!(written(&BOTH, None, &BOTH, &BOTH), shows(&BOTH, Some("a")));
    assert_eq!(written(&BOTH, None, &[], &BOTH), None);
}

#[test]
fn what_nobody_could_announce_is_shown_by_nobody() {
    assert_eq!(written(&BOTH, Some("b"), &[], &[]), shows(&[], None));
    assert_eq!(written(&[], None, &[], &[]), None);
}

#[test]
fn what_another_provider_shows_is_its_own() {
    let other = ["203.0.113.7"];
    assert_eq!(written(&other, None, &[], &[]), None);
    assert_eq!(written(&other, None, &[], &BOTH), None, "no router knows ours yet");
}
