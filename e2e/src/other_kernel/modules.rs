//! Which files of a kernel are the modules of these names, and in which order they load: read out of the modules
//! themselves, as `depmod` would.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The modules and what they depend on, by name and file, each after its own dependencies.
pub(super) fn in_order(folder: &Path, names: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut all = BTreeMap::new();
    collect(folder, &mut all)?;
    let mut order = Vec::new();
    for name in names {
        add(name, &all, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    if order.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let file = all.get(name).with_context(|| format!("the other kernel has no module {name}"))?;
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    for dependency in dependencies(&bytes) {
        add(&dependency, all, order)?;
    }
    order.push((name.to_owned(), file.clone()));
    Ok(())
}

/// Reads the entry `depends` of the section `.modinfo`: texts of the form `key=value` that end in a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entry = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(entry.unwrap_or_default()).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Every module below `folder` by its name, in which a file's hyphens are underscores.
fn collect(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(&path, all)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
            all.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read_out_of_it() {
        let module = b"\x7fELF\0license=GPL\0depends=mrp,nf-conntrack\0name=8021q\0";
        assert_eq!(dependencies(module), ["mrp", "nf_conntrack"]);
        assert_eq!(dependencies(b"license=GPL\0depends=\0"), [""; 0]);
        assert_eq!(dependencies(b"license=GPL\0"), [""; 0]);
    }
}
