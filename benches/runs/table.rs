//! What was seen beside what is wanted, as one table.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Options, Seen,
    contract::{ALLOWED, CHECKPOINTS, Share, shares},
    lifecycle,
    process::{Operator, Usage},
    requests::is_lease,
};

/// How much more than its contract or than plain Jobs a run may cost.
pub const TOLERANCE: f64 = 1.10;

/// A figure: its name, what was seen, what is wanted, the verdict.
pub struct Row(String, String, String, &'static str);

/// Prints the table; returns whether every target that no busy machine can spoil was met.
pub fn print(options: &Options, operator: &Operator, seen: &Seen) -> bool {
    let runs = options.runs * options.rounds;
    let counts = shares(&seen.requests);
    let (mut rows, total) = mutating(&counts, runs);
    let contract: usize = ALLOWED.iter().map(|(_, _, count, _)| count).sum();
    let ratio = per_run(total, runs) / per_run(contract, 1);
    rows.push(row(
        "**mutating requests a run**",
        format!("{:.2} ({ratio:.2} ×)", per_run(total, runs)),
        format!("{contract} × ≤ {TOLERANCE:.2}"),
        ratio <= TOLERANCE,
    ));
    let reads: usize = counts.iter().filter(|(share, _)| matches!(share, Share::Read(..))).map(|(_, count)| count).sum();
    rows.push(row("**reads a run**", format!("{:.2}", per_run(reads, runs)), "0".into(), reads == 0));
    let idle: Vec<_> = seen.idle.iter().filter(|request| !is_lease(request)).collect();
    let busy = idle.iter().filter(|request| request.verb != "watch").count();
    let label = format!("**requests in {} idle seconds**", options.idle.as_secs());
    let text = format!("{busy} (+ {} watches renewed, {} for the lease)", idle.len() - busy, seen.idle.len() - idle.len());
    rows.push(row(&label, text, "0 (but for watches and lease)".into(), busy == 0));
    rows.extend(lifecycle::rows(&seen.lives));
    rows.extend(seen.deployed.rows());
    let met = seen.listed.held() && rows.iter().all(|Row(.., verdict)| *verdict != MISSED);
    rows.extend(seen.listed.rows());
    rows.extend(times(seen));
    let cpu = |usage: Usage| format!("{:.1} ms", per_run(usize::try_from(usage.cpu).unwrap(), runs));
    rows.push(plain("CPU of the operator a run", cpu(seen.usage)));
    rows.push(plain("CPU of the API server a run", cpu(seen.server_in_runs)));
    rows.push(plain("CPU of the API server a plain Job", cpu(seen.server_in_jobs)));
    rows.push(plain("most memory of the operator", format!("{} MiB", seen.usage.memory / 1024)));
    rows.extend(apart(&counts, runs));
    heading(options, operator, seen);
    show(&rows);
    met
}

const MET: &str = "met";
const MISSED: &str = "MISSED";

/// A figure with a target.
pub fn row(name: &str, seen: String, wanted: String, met: bool) -> Row {
    Row(name.to_owned(), seen, wanted, if met { MET } else { MISSED })
}

/// A figure without a target.
pub fn plain(name: &str, seen: String) -> Row {
    Row(name.to_owned(), seen, String::new(), "")
}

/// Of so many in all, how many for each run.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn per_run(count: usize, runs: usize) -> f64 {
    count as f64 / runs as f64
}

/// One row for each kind of mutating request, and how many there were in all.
fn mutating(counts: &BTreeMap<Share, usize>, runs: usize) -> (Vec<Row>, usize) {
    let mut rows = Vec::new();
    let mut total = 0;
    let mut left = counts.clone();
    for (resource, verb, wanted, what) in ALLOWED {
        let count = left.remove(&Share::Mutating((*resource).into(), (*verb).into())).unwrap_or_default();
        total += count;
        rows.push(Row(format!("{verb} {resource}: {what}"), format!("{:.2}", per_run(count, runs)), wanted.to_string(), ""));
    }
    for (share, count) in left {
        let (resource, verb) = match share {
            Share::Mutating(resource, verb) => {
                total += count;
                (resource, verb)
            }
            Share::Read(resource, verb) => (resource, verb),
            Share::Apart(_) => continue,
        };
        rows.push(Row(format!("{verb} {resource}"), format!("{:.2}", per_run(count, runs)), "0".into(), ""));
    }
    (rows, total)
}

fn apart(counts: &BTreeMap<Share, usize>, runs: usize) -> Vec<Row> {
    let all = counts.iter().filter_map(|(share, count)| match share {
        Share::Apart(name) => Some(plain(&format!("apart: {name} a run"), format!("{:.2}", per_run(*count, runs)))),
        _ => None,
    });
    all.collect()
}

/// The median, in seconds, of an odd number of rounds; of an even number the mean of the middle two.
pub fn median(times: &[Duration]) -> f64 {
    let mut times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    times.sort_by(f64::total_cmp);
    f64::midpoint(times[(times.len() - 1) / 2], times[times.len() / 2])
}

fn times(seen: &Seen) -> Vec<Row> {
    let (runs, jobs) = (median(&seen.runs), median(&seen.jobs));
    let each = |times: &[Duration]| times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect::<Vec<_>>().join(", ");
    vec![
        plain("wall time of all runs, each round", format!("{} s", each(&seen.runs))),
        plain("wall time of as many plain Jobs", format!("{} s", each(&seen.jobs))),
        row(
            "**wall time, median beside median**",
            format!("{:.2} × (+ {:.1} s)", runs / jobs, runs - jobs),
            format!("≤ {TOLERANCE:.2} ×"),
            runs / jobs <= TOLERANCE,
        ),
    ]
}

fn heading(options: &Options, operator: &Operator, seen: &Seen) {
    println!(
        "\n{} rounds of {} runs at once, {CHECKPOINTS} checkpoints each, {:?} of work before each; operator: {} build; {} refused requests\n",
        options.rounds,
        options.runs,
        options.pause,
        operator.build(),
        seen.requests.iter().filter(|request| !request.succeeded()).count(),
    );
}

/// Prints rows as a table.
pub fn show(rows: &[Row]) {
    println!("| figure | seen | wanted | |\n|---|---|---|---|");
    for Row(name, seen, wanted, verdict) in rows {
        println!("| {name} | {seen} | {wanted} | {verdict} |");
    }
}
