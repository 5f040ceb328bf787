//! The rules the code holds itself to: which layer may see which, what a plan may not mention, how large things may grow.
//!
//! Every rule is a function from sources to complaints, so that each can be shown to fail.
#![expect(clippy::unwrap_used, reason = "a source that cannot be read fails the test")]

#[path = "architecture/source.rs"]
mod source;

use std::path::Path;

use source::{Source, read, words};

/// What each module of the library may name, beside itself. The direction is
/// main → cli → shells → {plan, cluster, `checkpoint_files`} → {api, protocol, settings, access, telemetry, listener, signals}.
const LAYERS: &[(&str, &[&str])] = &[
    ("access", &[]),
    ("api", &[]),
    ("protocol", &["api"]),
    ("settings", &["api"]),
    ("listener", &[]),
    ("signals", &[]),
    ("telemetry", &[]),
    ("watches", &[]),
    ("checkpoint_files", &[]),
    ("plan", &["api", "protocol", "settings"]),
    ("cluster", &["api", "plan"]),
    ("agent", &["api", "protocol", "checkpoint_files", "listener", "signals", "telemetry"]),
    // One process runs the report server beside the reconcilers, so the one that starts them sees both.
    ("controllers", &["api", "settings", "telemetry", "plan", "cluster", "reports", "signals", "watches"]),
    ("generate", &["access", "api", "gateway"]),
    ("check", &["api"]),
    ("gateway", &["access", "api", "listener", "plan", "settings", "signals", "telemetry", "watches"]),
    ("plugin", &["api", "plan"]),
    ("reports", &["access", "api", "listener", "protocol", "telemetry"]),
    ("cli", &["agent", "check", "controllers", "gateway", "generate", "plugin", "reports", "settings", "telemetry"]),
    ("main", &["cli"]),
    ("bin", &["cli", "plugin"]),
];

/// Words that may not occur below a folder but for some files, and why.
const BANS: &[Ban] = &[
    Ban {
        below: "src/plan/",
        but_for: &[],
        words: &[
            "Client",
            "tokio",
            "async",
            "await",
            "Timestamp::now",
            "Zoned::now",
            "SystemTime",
            "Instant",
            "std::fs",
            "std::env",
            "std::net",
            "std::process",
            "rand",
            "tracing",
        ],
        why: "a plan is data in, data out",
    },
    Ban {
        below: "src/",
        // The gateway writes what callers ask for, with their credential, and a check has the server try and keep nothing.
        but_for: &["src/check.rs", "src/cluster/", "src/reports/", "src/gateway/service/cluster.rs", "src/gateway/identity.rs"],
        words: &["PostParams", "PatchParams", "DeleteParams"],
        why: "only `cluster` and `reports` write to Kubernetes",
    },
    Ban {
        below: "src/agent/",
        but_for: &[],
        words: &["kube"],
        why: "an agent holds no Kubernetes credential and speaks to the report server alone",
    },
    Ban {
        below: "src/checkpoint_files/",
        but_for: &[],
        words: &["kube", "tokio", "async"],
        why: "reading checkpoints needs nothing but a file system",
    },
    Ban { below: "src/", but_for: &[], words: &["unsafe", "todo!", "unimplemented!", "dbg!"], why: "none of these ships" },
];

struct Ban {
    below: &'static str,
    but_for: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const FILE_LINES: usize = 300;
const CONTROLLER_AIM: usize = 200;
const MAIN_LINES: usize = 20;
const FUNCTION_LINES: usize = 60;
const PARAMETERS: usize = 5;

/// Files longer than the budget: lists of fields with a description each. Splitting them would tear one type from another.
const LONG_FILES: &[&str] = &["src/api/fine_tune.rs", "src/protocol.rs"];

/// Names of modules a file may not see.
fn against_the_direction(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/") && source.path != "src/lib.rs") {
        let module = if source.path == "src/main.rs" { "main" } else { source.module().first().copied().unwrap_or_default() };
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
            complaints.push(format!("{}: {module} has no place among the layers; give it one in LAYERS", source.path));
            continue;
        };
        // A capital is a macro's or an item at the root, of which there are none.
        let seen = source.dependencies().into_iter().filter(|name| name != module && !allowed.contains(&name.as_str()));
        complaints.extend(seen.map(|name| format!("{}: {module} may not see {name}", source.path)));
    }
    complaints
}

fn forbidden_words(sources: &[Source], rules: &[Ban]) -> Vec<String> {
    let applies = |rule: &Ban, path: &str| path.starts_with(rule.below) && !rule.but_for.iter().any(|but| path.starts_with(but));
    let mut complaints = Vec::new();
    for source in sources {
        for rule in rules.iter().filter(|rule| applies(rule, &source.path)) {
            let found = rule.words.iter().filter(|word| !words(&source.code, word).is_empty());
            complaints.extend(found.map(|word| format!("{}: mentions {word}, but {}", source.path, rule.why)));
        }
    }
    complaints
}

/// A file that calls itself pure reads no clock, waits for nothing and knows no cluster.
fn not_as_pure_as_they_say(sources: &[Source]) -> Vec<String> {
    let says_so = |source: &Source| {
        let doc = source.text.lines().take_while(|line| line.starts_with("//!")).collect::<String>();
        ["Pure.", "Pure,", "Pure;", "Pure:", "Pure data"].iter().any(|claim| doc.contains(claim))
    };
    let rule = [Ban {
        below: "",
        but_for: &[],
        words: &["async", "await", "tokio", "Timestamp::now", "SystemTime::now", "Instant::now", "Client", "std::fs", "std::env"],
        why: "its first lines say that it is pure",
    }];
    sources
        .iter()
        .filter(|source| says_so(source))
        .flat_map(|source| forbidden_words(std::slice::from_ref(source), &rule))
        .collect()
}

/// `Deployment` alone is ambiguous: ours is `ModelDeployment`, the built-in one `apps::Deployment`.
fn bare_deployments(sources: &[Source]) -> Vec<String> {
    let bare = |source: &&Source| words(&source.code, "Deployment").into_iter().any(|at| !source.code[..at].ends_with("apps::"));
    sources.iter().filter(bare).map(|source| format!("{}: names Deployment without apps::", source.path)).collect()
}

fn over_budget(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let is_main =
            source.path.ends_with("src/main.rs") && source.path != "run/src/main.rs" || source.path.starts_with("src/bin/");
        let most = if is_main { MAIN_LINES } else { FILE_LINES };
        if source.lines() > most && !LONG_FILES.contains(&source.path.as_str()) {
            complaints.push(format!("{}: {} lines without tests, {most} at most", source.path, source.lines()));
        }
        for function in source.functions() {
            if function.lines > FUNCTION_LINES {
                complaints.push(format!(
                    "{}: fn {} has {} lines, {FUNCTION_LINES} at most",
                    source.path, function.name, function.lines
                ));
            }
            if function.parameters > PARAMETERS {
                complaints.push(format!(
                    "{}: fn {} takes {} parameters, {PARAMETERS} at most",
                    source.path, function.name, function.parameters
                ));
            }
        }
    }
    complaints
}

/// Exceptions that are none any more.
fn stale_exceptions(sources: &[Source], exceptions: &[&str]) -> Vec<String> {
    let needed = |path: &str| sources.iter().any(|source| source.path == path && source.lines() > FILE_LINES);
    exceptions
        .iter()
        .filter(|path| !needed(path))
        .map(|path| format!("{path} is within the budget: take it off LONG_FILES"))
        .collect()
}

fn ours() -> Vec<Source> {
    read(Path::new(env!("CARGO_MANIFEST_DIR")), &["src", "run/src"])
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_sources_are_found_and_understood() {
    let sources = ours();
    assert!(sources.len() > 50 && sources.iter().all(|source| !source.path.ends_with("tests.rs")));
    let runner = sources.iter().find(|source| source.path == "src/controllers/fine_tune.rs").unwrap();
    assert!(runner.dependencies().contains("plan") && runner.dependencies().contains("cluster"));
    assert!(runner.functions().iter().any(|function| function.name == "observe" && function.parameters == 2));
}

#[test]
fn every_layer_sees_only_those_below() {
    assert_none(&against_the_direction(&ours()));
}

#[test]
fn each_layer_keeps_to_its_words() {
    assert_none(&forbidden_words(&ours(), BANS));
}

#[test]
fn what_says_it_is_pure_is_pure() {
    assert_none(&not_as_pure_as_they_say(&ours()));
}

#[test]
fn no_deployment_is_ambiguous() {
    assert_none(&bare_deployments(&ours()));
}

#[test]
fn files_functions_and_parameters_stay_within_budget() {
    let sources = ours();
    let long = |source: &&Source| source.path.starts_with("src/controllers/") && source.lines() > CONTROLLER_AIM;
    for source in sources.iter().filter(long) {
        println!("{}: {} lines, the aim is {CONTROLLER_AIM}", source.path, source.lines());
    }
    assert_none(&over_budget(&sources));
    assert_none(&stale_exceptions(&sources, LONG_FILES));
}

/// That each rule can fail, and does not fail for no reason.
mod rules {
    use super::*;

    fn one(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    #[test]
    fn the_direction_refuses_what_looks_up_and_what_has_no_place() {
        assert_eq!(
            against_the_direction(&one("src/plan/a.rs", "use crate::{api::X, cluster::Cluster};")),
            ["src/plan/a.rs: plan may not see cluster"]
        );
        assert_eq!(against_the_direction(&one("src/api/a.rs", "use crate::plan::X;")).len(), 1);
        assert_eq!(
            against_the_direction(&one("src/plan/a.rs", "use crate::telemetry::Metrics;")).len(),
            1,
            "telemetry is for shells"
        );
        assert_eq!(against_the_direction(&one("src/main.rs", "use finetune_operator::agent;")).len(), 1);
        assert_eq!(against_the_direction(&one("src/novel/a.rs", "")).len(), 1);
        assert_none(&against_the_direction(&one("src/plan/a.rs", "use crate::{api::X, plan::Y}; // crate::cluster")));
        assert_none(&against_the_direction(&one("src/plan/a.rs", "#[cfg(test)]\nmod tests { use crate::cluster; }")));
    }

    #[test]
    fn no_layer_looks_up() {
        let shells = ["agent", "controllers", "gateway", "generate", "plugin", "reports"];
        let rank = |layer: &str| match layer {
            "main" | "bin" => 5,
            "cli" => 4,
            shell if shells.contains(&shell) => 3,
            "plan" | "cluster" | "checkpoint_files" => 2,
            _ => 1,
        };
        for (layer, allowed) in LAYERS {
            for seen in *allowed {
                assert!(rank(seen) <= rank(layer), "{layer} sees {seen}");
                assert!(*seen != "telemetry" || rank(layer) >= 3, "{layer} sees telemetry");
            }
        }
    }

    #[test]
    fn a_plan_that_looks_at_the_clock_or_the_cluster_is_refused() {
        for bad in [
            "let t = Timestamp::now();",
            "async fn f() {}",
            "use kube::Client;",
            "use tokio::sync;",
            "std::time::SystemTime::now()",
        ] {
            assert!(!forbidden_words(&one("src/plan/a.rs", bad), BANS).is_empty(), "{bad}");
        }
        assert_none(&forbidden_words(
            &one("src/plan/a.rs", "// async Client\nstruct ClientId; fn f() -> &'static str { \"tokio\" }"),
            BANS,
        ));
    }

    #[test]
    fn writers_and_agents_are_held_to_their_place() {
        assert_eq!(forbidden_words(&one("src/controllers/a.rs", "use kube::api::PatchParams;"), BANS).len(), 1);
        assert_none(&forbidden_words(&one("src/cluster/a.rs", "use kube::api::PatchParams;"), BANS));
        assert_eq!(forbidden_words(&one("src/agent/a.rs", "use kube::Client;"), BANS).len(), 1);
    }

    #[test]
    fn a_claim_of_purity_is_held() {
        assert_eq!(not_as_pure_as_they_say(&one("src/x.rs", "//! Adds. Pure.\nfn f() { Instant::now(); }")).len(), 1);
        assert_none(&not_as_pure_as_they_say(&one("src/x.rs", "//! Sleeps.\nfn f() { Instant::now(); }")));
    }

    #[test]
    fn a_bare_deployment_is_refused() {
        assert_eq!(bare_deployments(&one("src/x.rs", "use apps::v1::Deployment;")).len(), 1);
        assert_eq!(bare_deployments(&one("src/x.rs", "type D = Deployment;")).len(), 1);
        assert_none(&bare_deployments(&one(
            "src/x.rs",
            "fn f(a: apps::Deployment, b: ModelDeployment) {} // Deployment\n const K: &str = \"Deployment\";",
        )));
    }

    #[test]
    fn budgets_are_held() {
        let long = "const A: u8 = 1;\n".repeat(301);
        assert_eq!(over_budget(&one("src/x.rs", &long)).len(), 1);
        assert_none(&over_budget(&one("src/protocol.rs", &long)));
        assert_eq!(over_budget(&one("src/main.rs", &"const A: u8 = 1;\n".repeat(21))).len(), 1);
        let body = "    a();\n".repeat(60);
        assert_eq!(over_budget(&one("src/x.rs", &format!("fn f() {{\n{body}}}\n"))), ["src/x.rs: fn f has 62 lines, 60 at most"]);
        assert_eq!(over_budget(&one("src/x.rs", "fn f(a: A, b: B, c: C, d: D, e: E, g: G) {}")).len(), 1);
        assert_none(&over_budget(&one("src/x.rs", "fn f(a: A, b: B, c: C, d: D, e: (E, G)) {}")));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_none(&over_budget(&one("src/x.rs", &tests)));
        assert_eq!(stale_exceptions(&one("src/x.rs", ""), &["src/x.rs"]).len(), 1);
    }
}
