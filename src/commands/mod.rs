//! One file per subcommand: validate, build, call, report.
