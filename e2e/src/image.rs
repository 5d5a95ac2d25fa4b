//! Container images without Docker: programs and the shared libraries they need, packed as OCI archives.
//!
//! An archive is a function of its files: the same programs give the same bytes. containerd, Podman and
//! `docker load` all read it ([OCI image layout](https://github.com/opencontainers/image-spec), and Docker's
//! `manifest.json` beside it).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub mod berth;
pub mod kubernetes;
mod libraries;

/// Where image names begin: a registry that cannot exist, so nothing is ever pulled by accident.
pub const REGISTRY: &str = "localhost/berth";

/// The version of every image of this workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An image to be.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    tag: String,
    user: Option<u32>,
    entrypoint: Vec<String>,
    /// Bottom first.
    layers: Vec<Layer>,
}

/// Files by their absolute path in the image.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    files: BTreeMap<PathBuf, Content>,
    /// Where each symbolic link leads.
    links: BTreeMap<PathBuf, String>,
}

#[derive(Clone, Debug)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

/// A blob of the archive: content and how a descriptor names it.
struct Blob {
    media_type: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Image {
    /// An empty image that starts `entrypoint`.
    pub fn new(name: &str, entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(ToString::to_string).collect();
        Self {
            name: name.to_owned(),
            tag: VERSION.to_owned(),
            user: None,
            entrypoint,
            layers: Vec::new(),
        }
    }

    /// Has another version than this workspace.
    pub fn tagged(mut self, version: &str) -> Self {
        version.clone_into(&mut self.tag);
        self
    }

    /// Runs as this user and group unless the pod says otherwise; without it, as root.
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Puts a layer on top. Two images with an equal layer share it on a node.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The name pods use, e.g. `localhost/berth/pause:0.1.0`.
    pub fn reference(&self) -> String {
        format!("{REGISTRY}/{}:{}", self.name, self.tag)
    }

    /// The archive's file name, e.g. `pause.tar`.
    pub fn file_name(&self) -> String {
        format!("{}.tar", self.name)
    }

    /// Writes the archive into `folder`, whole or not at all, and gives its path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(self.file_name());
        let temporary = folder.join(format!(".{}.{}", self.file_name(), std::process::id()));
        let result = self.write_to(&temporary).and_then(|()| Ok(fs::rename(&temporary, &path)?));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
            .with_context(|| format!("write image {} to {}", self.reference(), path.display()))?;
        Ok(path)
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        let layers = self.layers.iter().map(Layer::to_blob).collect::<Result<Vec<_>>>()?;
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &self.config(&layers))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest)?;
        let mut descriptor = manifest.descriptor();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.reference(),
            "org.opencontainers.image.ref.name": self.reference(),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [self.reference()],
            "Layers": layers.iter().map(Blob::path).collect::<Vec<_>>(),
        }]);

        let file = File::create(path)?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, &serde_json::to_vec(&index)?)?;
        append(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&docker)?)?;
        let blobs: BTreeMap<_, _> = layers
            .iter()
            .chain([&config, &manifest])
            .map(|blob| (blob.path(), &blob.bytes))
            .collect();
        for (path, bytes) in blobs {
            append(&mut archive, &path, 0o644, bytes)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    fn config(&self, layers: &[Blob]) -> Value {
        let mut config = json!({
            "Entrypoint": self.entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        });
        if let Some(id) = self.user {
            config["User"] = format!("{id}:{id}").into();
        }
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>(),
            },
        })
    }
}

impl Layer {
    /// A layer without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with the given content.
    pub fn file(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), Content { bytes: bytes.into(), mode });
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, to: &str) -> Self {
        self.links.insert(path.into(), to.to_owned());
        self
    }

    /// Adds a copy of a file of this machine under another name, with its permissions.
    pub fn copy(mut self, path: &str, from: &Path) -> Result<Self> {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.files.insert(path.into(), Content { bytes, mode });
        Ok(self)
    }

    /// Adds the shared libraries and the loader that the program `from` needs, where it looks for them.
    pub fn libraries_of(self, from: &Path) -> Result<Self> {
        self.libraries_of_all(&[from])
    }

    /// The same for several.
    pub fn libraries_of_all(self, from: &[&Path]) -> Result<Self> {
        libraries::of(from)?
            .into_iter()
            .try_fold(self, |layer, library| layer.copy(&library.display().to_string(), &library))
    }

    /// Every file: its absolute path, permissions and content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, u32, &[u8])> {
        self.files.iter().map(|(path, file)| (path.as_path(), file.mode, file.bytes.as_slice()))
    }

    fn to_blob(&self) -> Result<Blob> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folders = Vec::<&Path>::new();
        for path in self.files.keys().chain(self.links.keys()) {
            ensure!(path.is_absolute(), "{} is not an absolute path", path.display());
        }
        for (path, to) in &self.links {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            header.set_size(0);
            let link = archive.append_link(&mut header, inside(path)?, to);
            link.with_context(|| format!("pack {}", path.display()))?;
        }
        for (path, content) in &self.files {
            let mut above: Vec<_> =
                path.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
            above.reverse();
            for folder in above {
                if !folders.contains(&folder) {
                    append_folder(&mut archive, folder)?;
                    folders.push(folder);
                }
            }
            append(&mut archive, inside(path)?, content.mode, &content.bytes)?;
        }
        Ok(Blob::new("application/vnd.oci.image.layer.v1.tar", archive.into_inner()?))
    }
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let digest: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type, digest: format!("sha256:{digest}"), bytes }
    }

    fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// The machine's architecture as Go spells it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn inside(path: &Path) -> Result<&str> {
    let path = path.strip_prefix("/").unwrap_or(path);
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("pack {path}"))
}

fn append_folder<W: Write>(archive: &mut tar::Builder<W>, path: &Path) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755);
    header.set_size(0);
    let path = format!("{}/", inside(path)?);
    archive
        .append_data(&mut header, &path, std::io::empty())
        .with_context(|| format!("pack {path}"))
}

/// Owned by root and without a time, so that an archive depends on its files alone.
fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        let layer = Layer::new()
            .file("/bin/b", 0o755, *b"b")
            .file("/bin/a", 0o755, *b"a")
            .file("/etc/x", 0o600, *b"x");
        Image::new("test", &["/bin/a"]).user(65532).layer(layer)
    }

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_in_any_order() {
        let other = Layer::new()
            .file("/etc/x", 0o600, *b"x")
            .file("/bin/a", 0o755, *b"a")
            .file("/bin/b", 0o755, *b"b");
        assert_eq!(image().layers[0].to_blob().unwrap().bytes, other.to_blob().unwrap().bytes);
    }

    #[test]
    fn a_layer_names_each_folder_once_and_before_its_files() {
        let bytes = image().layers[0].to_blob().unwrap().bytes;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths, ["bin/", "bin/a", "bin/b", "etc/", "etc/x"]);
    }

    #[test]
    fn a_link_leads_where_it_says() {
        let bytes = Layer::new().link("/old", "/bin/a").to_blob().unwrap().bytes;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let link = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(link.path().unwrap().display().to_string(), "old");
        assert_eq!(link.link_name().unwrap().unwrap().display().to_string(), "/bin/a");
        assert!(Layer::new().link("old", "/bin/a").to_blob().is_err());
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let folder = std::env::temp_dir().join(format!("berth-image-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = image().write(&folder).unwrap();
        let files = entries(&fs::read(path).unwrap());
        fs::remove_dir_all(&folder).unwrap();

        let follow = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(Blob::new("", bytes.clone()).digest, digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(follow(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(follow(&manifest["config"])).unwrap();
        let layer = follow(&manifest["layers"][0]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
            "layers are not compressed"
        );
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(entries(layer)["bin/a"], b"a");

        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(docker[0]["RepoTags"][0], image().reference());
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }
}
