//! Objects whose values are nearly right.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::mutate;

/// What texts are cut at, and what stands where a name, an address or a number is read.
const WORDS: [&str; 24] = [
    ",",
    "-",
    "/",
    "=",
    ":",
    "%",
    ".",
    " ",
    "\n",
    "\0",
    "\u{202e}",
    "\u{fffd}",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "/0",
    "/129",
    "-1",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "1e999",
    "{\"a\":",
    "[[[[",
];

/// How often something is repeated at most.
const FEW: usize = 8;
/// Seldom it is repeated up to so many octets of a text, as annotations may have (`TotalAnnotationSizeLimitB` of Kubernetes
/// is 256 KiB), or values of a list.
const OCTETS: usize = 262_144;
const VALUES: usize = 4_000;

/// How deep values are nested that are not so in a sample; serde_json reads 128 levels.
const DEEP: usize = 100;

/// One of the samples with a few mutations.
pub(crate) fn mutated(random: &mut Rng, samples: &[Value]) -> Value {
    let mut object = random.choice(samples).cloned().unwrap_or_default();
    for _ in 0..random.u8(1..5) {
        // What is large already is large enough.
        if count(&object) < VALUES {
            mutate(random, &mut object, samples);
        }
    }
    object
}

/// How many values there are in a value, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value of this number, counted as [`count`] does.
fn nth(value: &mut Value, number: usize) -> Option<&mut Value> {
    if number == 0 {
        return Some(value);
    }
    let mut left = number - 1;
    let children: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(fields) => Box::new(fields.values_mut()),
        _ => return None,
    };
    for child in children {
        let count = count(child);
        if left < count {
            return nth(child, left);
        }
        left -= count;
    }
    None
}

fn mutate(random: &mut Rng, object: &mut Value, samples: &[Value]) {
    let mut other = random.choice(samples).cloned().unwrap_or_default();
    let number = random.usize(..count(&other));
    let other = nth(&mut other, number).map(Value::take).unwrap_or_default();
    let number = random.usize(..count(object));
    let Some(value) = nth(object, number) else { return };
    match (random.u8(..10), value) {
        (0, value) => *value = edge(random),
        (1, value) => *value = other,
        (2, value) => *value = nested(random, value.take()),
        (_, Value::String(text)) => *text = changed(random, text),
        (_, Value::Array(items)) => change_items(random, items),
        (_, Value::Object(fields)) => change_fields(random, fields),
        (_, value) => *value = edge(random),
    }
}

fn edge(random: &mut Rng) -> Value {
    let edges = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(i64::from(i32::MAX) + 1),
        json!(1e308),
        json!(""),
        json!([]),
        json!({}),
    ];
    random.choice(edges).unwrap_or_default()
}

fn nested(random: &mut Rng, value: Value) -> Value {
    let within = |value, _| if random.bool() { json!([value]) } else { json!({ "a": value }) };
    (0..DEEP).fold(value, within)
}

fn changed(random: &mut Rng, text: &str) -> String {
    if random.bool() {
        let octets = mutate::octets(random, &[text.as_bytes().to_vec()]);
        return String::from_utf8_lossy(&octets).into_owned();
    }
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let at = random.choice(starts).unwrap_or_default();
    let word = random.choice(WORDS).unwrap_or_default();
    let (before, after) = text.split_at(at);
    match random.u8(..4) {
        0 => format!("{before}{word}"),
        1 => format!("{word}{after}"),
        2 => format!("{text},").repeat(times(random, text.len() + 1, OCTETS)),
        _ => format!("{before}{}{after}", word.repeat(times(random, word.len(), OCTETS))),
    }
}

/// How often what is so large is repeated: seldom until there is `most` of it.
fn times(random: &mut Rng, size: usize, most: usize) -> usize {
    let times = if random.u8(..) < 4 { most / size.max(1) } else { FEW };
    random.usize(..times.clamp(1, most))
}

fn change_items(random: &mut Rng, items: &mut Vec<Value>) {
    let Some(item) = random.choice(&*items).cloned() else { return items.push(edge(random)) };
    if random.bool() {
        items.pop();
    } else {
        let times = times(random, count(&item), VALUES);
        items.extend(std::iter::repeat_n(item, times));
    }
}

fn change_fields(random: &mut Rng, fields: &mut Map<String, Value>) {
    let Some(name) = random.choice(fields.keys().cloned().collect::<Vec<_>>()) else { return };
    let Some(value) = fields.remove(&name) else { return };
    match random.u8(..3) {
        0 => {}
        1 => _ = fields.insert(changed(random, &name), value),
        _ => {
            let times = times(random, count(&value), VALUES);
            fields.extend((0..times).map(|number| (format!("{name}{number}"), value.clone())));
            fields.insert(name, value);
        }
    }
}
