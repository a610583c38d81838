//! No two files of a crate import each other, directly or through other files. So one file can be
//! read without reading all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{MetadataCommand, Package, TargetKind};
use syn::visit::{self, Visit};

use crate::Outcome;
use crate::tree::root;

/// The test helpers are not shipped, so their modules may import each other.
const LEFT_OUT: &[&str] = &["relay-tests"];

/// A module, as its path from the crate's root.
type Module = Vec<String>;
/// The modules that each module names.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Checks every crate of the workspace.
pub(crate) fn check() -> Outcome {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|package| !LEFT_OUT.contains(&package.name.as_str())) {
        let cycles = cycles(&graph(package)?);
        findings.extend(
            cycles.iter().map(|cycle| format!("{}: these import each other: {}", package.name, cycle.join(", "))),
        );
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n       ").into()) }
}

fn graph(package: &Package) -> Outcome<Graph> {
    let is_library = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
    let target = package.targets.iter().find(|target| target.kind.iter().any(is_library));
    let main = target.ok_or_else(|| format!("{} has nothing to build", package.name))?.src_path.as_std_path();
    let folder = main.parent().ok_or("a source file is in a folder")?;
    let mut files = BTreeMap::new();
    read(folder, &[], &mut files)?;
    let main = syn::parse_file(&fs::read_to_string(main)?)?;
    let exported = exported(&main);
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    Ok(files.iter().map(|(module, file)| (module.clone(), named(module, file, &modules, &exported))).collect())
}

/// Parses the files below `folder` and adds them by module.
fn read(folder: &Path, above: &[String], files: &mut BTreeMap<Module, syn::File>) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let module = [above, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            read(&path, &module, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") && !matches!(name.as_str(), "lib" | "main") {
            let file =
                syn::parse_file(&fs::read_to_string(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
            files.insert(module, file);
        }
    }
    Ok(())
}

/// The names that the crate's root re-exports, each with its module: `pub use module::Name`.
fn exported(main: &syn::File) -> BTreeMap<String, Module> {
    let mut exported = BTreeMap::new();
    for item in &main.items {
        if let syn::Item::Use(item) = item {
            for path in paths(&item.tree, &[]) {
                if let [module @ .., name] = path.as_slice()
                    && !module.is_empty()
                {
                    exported.insert(name.clone(), module.to_vec());
                }
            }
        }
    }
    exported
}

/// The paths that a use tree names.
fn paths(tree: &syn::UseTree, above: &[String]) -> Vec<Vec<String>> {
    let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => paths(&path.tree, &with(&path.ident)),
        syn::UseTree::Name(name) => vec![with(&name.ident)],
        syn::UseTree::Rename(name) => vec![with(&name.ident)],
        syn::UseTree::Glob(_) => vec![above.to_vec()],
        syn::UseTree::Group(group) => group.items.iter().flat_map(|tree| paths(tree, above)).collect(),
    }
}

/// The other modules that `file` names outside its tests.
fn named(
    module: &Module,
    file: &syn::File,
    modules: &BTreeSet<Module>,
    exported: &BTreeMap<String, Module>,
) -> BTreeSet<Module> {
    let mut names = Names::default();
    names.visit_file(file);
    let mut found = BTreeSet::new();
    for path in names.0 {
        let Some(path) = absolute(module, &path, modules) else { continue };
        let longest = (1..=path.len()).rev().map(|count| path[..count].to_vec()).find(|part| modules.contains(part));
        let by_name = || exported.get(path.first()?).cloned().filter(|module| modules.contains(module));
        found.extend(longest.or_else(by_name));
    }
    found.remove(module);
    found
}

/// The path from the crate's root, if it stays in the crate.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let above = path.iter().take_while(|name| *name == "super").count();
            let base = module.get(..module.len().checked_sub(above)?)?;
            Some([base, path.get(above..)?].concat())
        }
        // A child module by its bare name.
        _ => {
            let child = [module.as_slice(), std::slice::from_ref(first)].concat();
            modules.contains(&child).then(|| [module.as_slice(), path].concat())
        }
    }
}

/// Collects every path in a file.
#[derive(Default)]
struct Names(Vec<Vec<String>>);

impl<'a> Visit<'a> for Names {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
        });
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.0.extend(paths(&item.tree, &[]));
    }

    /// The path in `pub(super)` limits visibility and uses nothing.
    fn visit_vis_restricted(&mut self, _: &'a syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The groups of modules that reach each other.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let together = |one: &Module, other: &Module| {
        let reaches = |from: &Module, to: &Module| reached.get(from).is_some_and(|all| all.contains(to));
        reaches(one, other) && reaches(other, one)
    };
    let mut groups = BTreeSet::new();
    for one in graph.keys() {
        let group: Vec<String> = graph
            .keys()
            .filter(|other| *other == one || together(one, other))
            .map(|module| module.join("::"))
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn reach<'a>(graph: &'a Graph, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut front: Vec<&Module> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = front.pop() {
        if reached.insert(module) {
            front.extend(graph.get(module).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
        let modules: BTreeSet<Module> = files.iter().map(|(path, _)| module(path)).collect();
        let exported = exported(&syn::parse_file("pub use a::Named;").unwrap());
        let graph = files.iter().map(|(path, text)| {
            (module(path), named(&module(path), &syn::parse_file(text).unwrap(), &modules, &exported))
        });
        cycles(&graph.collect())
    }

    #[test]
    fn files_that_import_each_other_are_found_by_whatever_path() {
        assert_eq!(of(&[("a", "use crate::b::X;"), ("b", "fn f() {}")]), [[""; 0]; 0]);
        let both = [["a".to_owned(), "b".to_owned()]];
        assert_eq!(of(&[("a", "use crate::b::X;"), ("b", "fn f() { crate::a::g() }")]), both);
        assert_eq!(of(&[("a", "use crate::{b::{self, X}, c};"), ("b", "use super::a;"), ("c", "")]), both);
        assert_eq!(of(&[("a", "use crate::b;"), ("b", "use crate::Named;")]), both, "over the root's own name");
        assert_eq!(of(&[("a", "use crate::b;"), ("b", "use crate::c;"), ("c", "use crate::a;")])[0].len(), 3);
        let parent = of(&[("a", "mod b; fn f() { b::g() }"), ("a::b", "use super::X;")]);
        assert_eq!(parent, [["a".to_owned(), "a::b".to_owned()]]);
        let in_tests = "#[cfg(test)] mod tests { use crate::a::X; }";
        assert_eq!(of(&[("a", "use crate::b::X;"), ("b", in_tests)]), [[""; 0]; 0]);
        assert_eq!(of(&[("a", "mod b; use b::X;"), ("a::b", "pub(super) struct X;")]), [[""; 0]; 0]);
    }
}
