//! What holds of every row.

use std::collections::BTreeSet;

use super::*;

#[test]
fn each_name_names_one_family_in_any_case() {
    let mut names = BTreeSet::new();
    for family in RuntimeFamily::all() {
        let profile = family.profile();
        for name in std::iter::once(&profile.name).chain(profile.scf_names) {
            assert_eq!(*name, name.to_ascii_lowercase());
            assert!(names.insert(*name), "`{name}` names two families");
            let runtime: Runtime = name.to_ascii_uppercase().parse().unwrap();
            assert_eq!(runtime.family(), family);
            assert_eq!(runtime.name(), name.to_ascii_uppercase());
        }
    }
    let unknown = "ruby".parse::<Runtime>().unwrap_err().to_string();
    for family in RuntimeFamily::all() {
        assert!(unknown.contains(family.as_str()), "{unknown}");
    }
}

#[test]
fn a_family_is_written_as_its_name_and_read_by_it() {
    for family in RuntimeFamily::all() {
        let text = serde_json::to_string(&family).unwrap();
        assert_eq!(text, format!("\"{}\"", family.as_str()));
        assert_eq!(serde_json::from_str::<RuntimeFamily>(&text).unwrap(), family);
    }
    let unknown = RuntimeFamily::try_from("ruby".to_owned()).unwrap_err().to_string();
    for family in RuntimeFamily::all() {
        assert!(unknown.contains(family.as_str()), "{unknown}");
    }
}

#[test]
fn each_constant_is_the_row_of_its_name() {
    let constants = [
        (RuntimeFamily::PYTHON, "python"),
        (RuntimeFamily::NODEJS, "nodejs"),
        (RuntimeFamily::GO, "go"),
        (RuntimeFamily::SHELL, "shell"),
        (RuntimeFamily::CUSTOM, "custom"),
    ];
    assert_eq!(constants.map(|(family, _)| family.as_str()), constants.map(|(_, name)| name));
    assert_eq!(constants.len(), RuntimeFamily::all().len());
}

#[test]
fn the_parts_of_a_row_fit_together() {
    for family in RuntimeFamily::all() {
        let profile = family.profile();
        let has = |word: CommandWord| profile.command.contains(&word);
        assert!(!profile.command.is_empty(), "{family:?}: nothing to start");
        assert_eq!(has(CommandWord::Bootstrap), profile.bootstrap.is_some(), "{family:?}");
        let needs_program = !has(CommandWord::HostProgram) || profile.host_program.is_some();
        assert!(needs_program, "{family:?}: a command without its program");
        assert_ne!(profile.runs_package_program(), has(CommandWord::HostProgram), "{family:?}");
        let late = profile.prewarm.is_none() || profile.adapter == AdapterKind::Direct;
        assert!(late, "{family:?}: only who connects itself can be given its function late");
        assert!(profile.mounts.iter().all(|path| path.starts_with('/')), "{family:?}");
        assert!(!profile.image.about.contains('\n') && !profile.image.packages.contains('\n'));
        let absolute = profile.host_program.is_none_or(|program| program.path.starts_with('/'));
        assert!(absolute, "{family:?}");
        if let HandlerRule::Module { files, .. } = profile.handler {
            assert!(files.iter().all(|file| file.contains("{}")), "{family:?}");
        }
    }
}
