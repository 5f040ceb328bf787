//! `finetune-run --dir DIR -- COMMAND…`: runs a trainer's command as a container's first process. It
//! forwards signals, copies the output to a bounded log for the sidecar, waits until the sidecar has
//! saved everything, and ends with the exit code the sidecar decided on.

mod args;
mod child;
mod handover;
mod lines;
mod log;
mod memory;
mod supervise;
mod tee;
mod time;

fn main() -> std::process::ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(args::Request::Run(options)) => supervise::run(&options).into(),
        Ok(args::Request::Say(text)) => {
            println!("{text}");
            std::process::ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("finetune-run: {problem}\n{}", args::USAGE);
            args::BAD_USAGE.into()
        }
    }
}
