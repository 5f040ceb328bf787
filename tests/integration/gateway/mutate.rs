//! Requests that are made by the document and then spoilt, by chance but always the same for the same seed.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

/// What a caller must never find in a log, beside the keys.
const PRIVATE: &str = "hunter2-private-text";

/// What requests can be about.
pub struct World {
    /// The document of the gateway.
    pub document: Value,
    /// The namespace of the caller.
    pub namespace: String,
    /// A namespace that is none of the caller's business.
    pub other: String,
    /// Good and bad keys.
    pub keys: Keys,
    /// What must never be logged.
    pub secrets: Vec<String>,
}

/// Keys of all kinds.
pub struct Keys {
    write: String,
    read: String,
    bad: Vec<String>,
}

/// A request.
#[derive(Clone)]
pub struct Mutant {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Its header fields.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Mutant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.body[..self.body.len().min(1000)];
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        write!(formatter, "{} {} with {names:?}: {}", self.method, self.uri, String::from_utf8_lossy(start))
    }
}

impl Keys {
    /// Two good keys, the key of an account that is gone, and what can be made of them.
    pub fn new(write: String, read: String, gone: String) -> Self {
        let parts: Vec<&str> = write.split('.').collect();
        let claims = "eyJpc3MiOiJrdWJlcm5ldGVzIiwic3ViIjoic3lzdGVtOmFkbWluIiwiZXhwIjoxfQ";
        let expired = format!("{}.{claims}.{}", parts[0], parts[2]);
        let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
        let cut = write[..write.len() / 2].to_owned();
        Self { bad: vec![gone, expired, unsigned, cut, "sk-forged-0123456789".into(), "a".repeat(20_000)], write, read }
    }

    /// Everything of them that must never be logged.
    pub fn secrets(&self) -> Vec<String> {
        let signature = |key: &String| key.rsplit('.').next().unwrap_or_default().to_owned();
        let whole = [&self.write, &self.read].into_iter().chain(&self.bad).cloned();
        let parts = [&self.write, &self.read, &self.bad[0]].map(signature);
        whole.chain(parts).chain([PRIVATE.to_owned()]).filter(|secret| secret.len() > 8).collect()
    }
}

const HOSTILE: &[&str] = &[
    "..",
    ".",
    "",
    "*",
    "..%2f..%2fsecrets",
    "%2e%2e%2f%2e%2e",
    "..%5c..",
    "%00",
    "bot%00",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "bot%2F..%2Fbot",
    "bot%3Fwatch=true",
    "bot%23",
    "%0d%0aX-Evil:%201",
    "ft%3Ait-tiny%3Aorg%3A%3Abot%3Ackpt-step-100",
    "ft:::::",
    "ft:a:b:c:bot:ckpt-step-99999999999999999999",
    "ftjob-",
    "ftjob-ftjob-bot",
    "ftjob-theirs",
    "theirs",
    "bot-step-9999",
    "-1",
    "9223372036854775808",
    "1e3",
    "NaN",
    "true",
    "null",
    "%F0%9F%98%80",
    "a%20b",
    "'%20OR%201=1--",
    "$(id)",
    "{{7*7}}",
    "kube-system",
    "system:masters",
    "%",
    "%zz",
];

/// A request of the document, mostly spoilt.
pub fn mutant(world: &World, random: &mut StdRng) -> Mutant {
    let paths: Vec<(&String, &Value)> = world.document["paths"].as_object().into_iter().flatten().collect();
    let &(template, item) = paths.choose(random).unwrap();
    let operations: Vec<(&String, &Value)> = item.as_object().into_iter().flatten().collect();
    let &(method, operation) = operations.choose(random).unwrap();
    let (spoil, body) = (random.random_range(0..6), body(world, operation, random));
    let mut mutant = Mutant {
        method: method.to_uppercase(),
        uri: path(world, template, method == "delete", random) + &query(operation, random),
        headers: headers(world, random),
        body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
    };
    match spoil {
        0 => spoil_path(&mut mutant, random),
        1 => spoil_bytes(&mut mutant.body, random),
        2 => {
            let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "MADEUP"];
            mutant.method = (*methods.choose(random).unwrap()).into();
            // The one run has to outlive the others.
            if mutant.method == "DELETE" {
                mutant.uri = mutant.uri.replace("bot", "nobody");
            }
        }
        3 => spoil_headers(&mut mutant, world, random),
        _ => {}
    }
    mutant
}

fn path(world: &World, template: &str, deletes: bool, random: &mut StdRng) -> String {
    let mut path = String::new();
    for segment in template.split('/').skip(1) {
        let known: &[&str] = match segment {
            "{namespace}" => &[&world.namespace, &world.namespace, &world.namespace, &world.other],
            "{repository}" => &["models", "models", "other"],
            "{id}" if deletes => &["ftjob-theirs", "nobody"],
            "{id}" => &["ftjob-bot", "bot", "ftjob-theirs"],
            "{step}" => &["100", "25", "101"],
            "{checkpoint}" => &["bot-step-100", "ftckpt-bot-step-75", "ft:it-tiny:org::bot:ckpt-step-50"],
            "{permission}" => &["cp_none", "bot"],
            "{model}" => &["bot-step-100", "gpt-4o"],
            fixed => &[fixed],
        };
        let hostile = segment.starts_with('{') && random.random_bool(0.35);
        let segment = if hostile { HOSTILE.choose(random) } else { known.choose(random) };
        path.push('/');
        path.push_str(segment.unwrap());
    }
    path
}

fn query(operation: &Value, random: &mut StdRng) -> String {
    let mut names: Vec<&str> =
        operation["parameters"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
    names.extend(["unknown", "metadata[team]", "metadata[", "limit[a]", "watch", "fieldSelector", "dryRun"]);
    let good = ["1", "20", "0", "true", "false", "a", "newest", "createdAt:desc", "running", "ascending", "2027-01-15T07:00:00Z"];
    let mut query = String::new();
    for _ in 0..random.random_range(0..4) {
        let value = if random.random_bool(0.5) { HOSTILE.choose(random) } else { good.choose(random) };
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(names.choose(random).unwrap());
        query.push('=');
        query.push_str(value.unwrap());
    }
    if random.random_bool(0.01) {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(PRIVATE);
    }
    query
}

/// A body that would be good, and in most cases is not any more.
fn body(world: &World, operation: &Value, random: &mut StdRng) -> Option<Value> {
    let schema = operation.pointer("/requestBody/content/application~1json/schema/$ref")?.as_str()?.rsplit('/').next()?;
    let mut body = match schema {
        "openai.CreateJob" => json!({
            "model": "it-tiny", "training_file": "rows", "suffix": "s", "seed": 7, "metadata": {"team": "a"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
        }),
        "openai.CreatePermissions" => json!({"project_ids": ["web", world.other]}),
        "openai.Asked" => json!({"model": "never-served", "messages": [{"role": "user", "content": PRIVATE}]}),
        "oxen.CreateFineTuneRequest" => json!({
            "resource": "data/train.jsonl", "base_model": "it-tiny", "script_type": "text_generation", "is_public": false,
            "training_params": {"steps": 10, "learning_rate": 0.001},
        }),
        "oxen.DeployRequest" => json!({"deployment_type": "normal"}),
        "strongly.CreateJob" => json!({
            "name": "Bot", "baseModel": "it-tiny", "trainingDataset": "rows", "description": PRIVATE,
            "hyperparameters": {"epochs": 3, "learningRate": 0.0002, "batchSize": 8}, "suffix": "support-v1",
        }),
        "strongly.Restart" => json!({"from": "scratch"}),
        "strongly.EstimateCost" => json!({"baseModel": "llama-3.1-8b", "datasetSize": 50000}),
        unknown => panic!("the tests know no body for {unknown}"),
    };
    for _ in 0..random.random_range(0..3) {
        spoil_value(&mut body, random);
    }
    Some(body)
}

/// Spoils one value, however deep it lies.
fn spoil_value(value: &mut Value, random: &mut StdRng) {
    match value {
        Value::Object(entries) if !entries.is_empty() && random.random_bool(0.85) => {
            let name = entries.keys().nth(random.random_range(0..entries.len())).unwrap().clone();
            match random.random_range(0..8) {
                0 => drop(entries.remove(&name)),
                1 => {
                    let moved = entries.remove(&name).unwrap_or_default();
                    entries.insert(format!("{name}x"), moved);
                }
                2 => drop(entries.insert(strange(random).to_string(), PRIVATE.into())),
                _ => entries.get_mut(&name).into_iter().for_each(|inner| spoil_value(inner, random)),
            }
        }
        Value::Array(items) if !items.is_empty() && random.random_bool(0.7) => {
            let at = random.random_range(0..items.len());
            spoil_value(&mut items[at], random);
        }
        value => *value = strange(random),
    }
}

fn strange(random: &mut StdRng) -> Value {
    let deep = (0..100).fold(Value::Null, |inner, _| json!([inner]));
    let wide: Map<String, Value> = (0..200).map(|n| (format!("key{n}"), n.into())).collect();
    let values = [
        Value::Null,
        true.into(),
        (-1).into(),
        0.into(),
        i64::MIN.into(),
        u64::MAX.into(),
        1e308.into(),
        0.1.into(),
        "".into(),
        " ".into(),
        "\u{0}".into(),
        "\u{202e}\u{feff}".into(),
        "auto".into(),
        "../../etc/passwd".into(),
        "file:///etc/passwd".into(),
        "s3://bucket/../x".into(),
        "volume://other/../../x".into(),
        "hf://".into(),
        "a".repeat(300).into(),
        "ü".repeat(5000).into(),
        json!([]),
        json!({}),
        json!(["*", "*", ""]),
        json!({"__proto__": {"a": 1}, "$ref": "#"}),
        deep,
        Value::Object(wide),
    ];
    values.choose(random).unwrap().clone()
}

fn headers(world: &World, random: &mut StdRng) -> Vec<(&'static str, Vec<u8>)> {
    let key = match random.random_range(0..10) {
        0 => world.keys.bad.choose(random).unwrap(),
        1..=3 => &world.keys.read,
        _ => &world.keys.write,
    };
    let key = if random.random_bool(0.5) { ("x-api-key", key.clone()) } else { ("authorization", format!("Bearer {key}")) };
    vec![(key.0, key.1.into_bytes()), ("content-type", b"application/json".to_vec())]
}

fn spoil_headers(mutant: &mut Mutant, world: &World, random: &mut StdRng) {
    let basic = format!("Basic {PRIVATE}").into_bytes();
    match random.random_range(0..9) {
        0 => mutant.headers.clear(),
        1 => mutant.headers[0] = ("authorization", basic),
        2 => mutant.headers.push(("x-api-key", world.keys.bad.choose(random).unwrap().clone().into_bytes())),
        3 => mutant.headers.push(("openai-project", world.other.clone().into_bytes())),
        4 => mutant.headers.push(("x-project", b"../kube-system\xff".to_vec())),
        5 => mutant.headers.push(("idempotency-key", vec![b'k'; random.random_range(0..400)])),
        6 => mutant.headers.push(("x-request-id", b"a\"} evil".to_vec())),
        7 => mutant.headers.push(("content-length", b"99999999999".to_vec())),
        _ => mutant.headers[1] = ("content-type", b"text/plain; charset=\xfe".to_vec()),
    }
}

fn spoil_path(mutant: &mut Mutant, random: &mut StdRng) {
    let at = mutant.uri.find('?').unwrap_or(mutant.uri.len());
    let (mut path, query) = (mutant.uri[..at].to_owned(), mutant.uri[at..].to_owned());
    match random.random_range(0..8) {
        0 => path.push('/'),
        1 => path = path.replacen('/', "//", 2),
        2 => path = path.to_uppercase(),
        3 => path = path.replace(':', "%3A").replace('-', "%2D"),
        4 => path = path.replacen("/jobs", "%2Fjobs", 1),
        5 => path = format!("{path}/{}", "a".repeat(8000)),
        6 => path.push_str(";v=1"),
        _ => path = format!("{path}/../{}", HOSTILE.choose(random).unwrap()),
    }
    mutant.uri = path + &query;
}

fn spoil_bytes(body: &mut Vec<u8>, random: &mut StdRng) {
    match random.random_range(0..8) {
        0 => body.truncate(random.random_range(0..=body.len())),
        1 | 2 if !body.is_empty() => {
            let at = random.random_range(0..body.len());
            body[at] = random.random();
        }
        3 => body.extend_from_slice(b"{}"),
        4 => body.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        5 => *body = b"[".repeat(50_000),
        6 => *body = vec![b' '; 1024 * 1024 + 1],
        _ => *body = (0..64).map(|_| random.random()).collect(),
    }
}
