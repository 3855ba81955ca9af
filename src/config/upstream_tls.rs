//! The section `tls` of an HTTP dependency.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::secret::Secret;
use super::section::Section;
use super::value_type::{path, string};

/// Certificates for the connections to one HTTP dependency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UpstreamTls {
    /// PEM file with the certificate authorities that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate that the gateway shows, and its chain.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of [`UpstreamTls::cert`].
    pub key: Option<PathBuf>,
    /// Name in the dependency's certificate, if it is not the host of its address.
    pub server_name: Option<String>,
    /// Hashes of the contents of the files, in the order of the fields above: a renewed file under the
    /// same path is another certificate.
    pub(super) contents: [Option<Secret>; 3],
}

/// Reads `tls`. `url`: the address of the dependency.
pub(super) fn read(mut section: Section<'_>, url: Option<&str>) -> Option<UpstreamTls> {
    let is_given = section.present;
    let ca = pem_file(&mut section, "ca");
    let cert = pem_file(&mut section, "cert");
    let key = pem_file(&mut section, "key");
    let is_name = |name: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-:".contains(letter);
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
    };
    let name = string("a host name or an address, without a port", is_name);
    let server_name = section.get("server_name", &name);
    check_pair(&section);
    check_swapped(&section, cert.as_deref());
    if is_given && url.is_some_and(|url| !url.starts_with("https://")) {
        let reason = "the url of the dependency does not begin with https://";
        section.conflict_here(reason, "to leave it out, or a url with https://");
    }
    // EDGE-6: a reload takes a renewed file over, and leaves other dependencies alone.
    let files = [("ca", &ca), ("cert", &cert), ("key", &key)];
    let contents = files.map(|(key, path)| note_contents(&section, key, path.as_deref()?));
    section.finish();
    is_given.then_some(UpstreamTls {
        ca,
        cert,
        key,
        server_name,
        contents,
    })
}

/// Reads the path of a file, which must exist.
pub(super) fn pem_file(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    const ALLOWED: &str = "the path of a file in PEM format";
    let path = PathBuf::from(section.get(key, &path(ALLOWED, |path| !path.is_empty()))?);
    if !path.is_file() {
        let full = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let reason = match path.is_relative() {
            true => format!(
                "there is no such file, or it may not be read: {}",
                full.display()
            ),
            false => "there is no such file, or it may not be read".to_owned(),
        };
        section.conflict(key, reason, ALLOWED);
    }
    Some(path)
}

/// Notes the contents of a file, so that a reload tells that they are others. Returns their hash; `None`
/// if the file cannot be read.
pub(super) fn note_contents(section: &Section<'_>, key: &str, path: &Path) -> Option<Secret> {
    /// Bundles of authorities have some hundred kilobytes.
    const MOST: u64 = 4 * 1024 * 1024;
    let mut contents = Vec::new();
    // EDGE-8: a pipe is not opened: it may have no writer.
    let file = Some(path).filter(|path| path.is_file())?;
    let file = File::open(file).ok()?;
    file.take(MOST).read_to_end(&mut contents).ok()?;
    let mut hash = DefaultHasher::new();
    contents.hash(&mut hash);
    let hash = Secret::new(hash.finish().to_string());
    let key = section.path_of(key);
    section.report.borrow_mut().hidden.insert(key, hash.clone());
    Some(hash)
}

/// Reports a file of a private key in place of the certificate.
pub(super) fn check_swapped(section: &Section<'_>, cert: Option<&Path>) {
    // EDGE-8: bounded; a chain of certificates is shorter.
    const MOST: u64 = 64 * 1024;
    let mut text = Vec::new();
    let read = cert.filter(|path| path.is_file()).and_then(|path| {
        let file = File::open(path).ok()?;
        file.take(MOST).read_to_end(&mut text).ok()
    });
    let text = String::from_utf8_lossy(&text);
    let is_key = text.contains("PRIVATE KEY-----") && !text.contains("-----BEGIN CERTIFICATE");
    if read.is_some() && is_key {
        let reason = "it holds a private key: are tls.cert and tls.key swapped?";
        section.conflict("cert", reason, "a file with a certificate in PEM format");
    }
}

/// Reports a certificate without a key, and a key without a certificate.
pub(super) fn check_pair(section: &Section<'_>) {
    for (key, other) in [("cert", "key"), ("key", "cert")] {
        if section.has(key) && !section.has(other) {
            let reason = format!("tls.{other} is missing");
            section.conflict(key, reason, "both tls.cert and tls.key, or none");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn edge_6_a_renewed_file_under_the_same_path_is_another_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let read = |contents: String| {
            std::fs::write(&path, contents).unwrap();
            let text = format!(
                "[dependencies.web]\nkind = \"http\"\nurl = \"https://a\"\ntls.ca = {path:?}\n\
                 [dependencies.other]\nkind = \"http\"\nurl = \"https://b\"\n"
            );
            Settings::loader().bare().toml(text).load().unwrap()
        };
        // As long as a bundle of a system.
        let bundle = |end: &str| format!("{}{end}", "-".repeat(300_000));
        let (old, same, new) = (read(bundle("1")), read(bundle("1")), read(bundle("2")));
        assert_eq!(old, same);
        assert_ne!(old.dependencies["web"].tls, new.dependencies["web"].tls);
        assert_eq!(old.dependencies["other"], new.dependencies["other"]);
        let shown = format!("{:?}", new.dependencies["web"].tls);
        assert!(shown.contains("***"), "SEC-1: {shown}");
    }
}
