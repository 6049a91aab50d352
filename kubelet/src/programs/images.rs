//! Images that are programs of this binary: what they start with, by repository name. Registry, tag and digest do not matter.

use bytes::Bytes;

/// What an image brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `ENTRYPOINT`: replaced by a container's `command`.
    pub entrypoint: Vec<String>,
    /// `CMD`: replaced by a container's `args`, and dropped when there is a `command`.
    pub cmd: Vec<String>,
    /// Environment that the image sets.
    pub env: Vec<(String, String)>,
    /// Files by path.
    pub files: Vec<(String, Bytes)>,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image of this name, if it is built in. `None`: a stand-in takes its place.
pub fn lookup(image: &str) -> Option<Image> {
    let (entrypoint, cmd): (&[&str], &[&str]) = match repository(image) {
        "agnhost" => (&["/agnhost"], &["pause"]),
        "pause" | "pause-amd64" | "pause-arm64" => (&["/pause"], &[]),
        "busybox" | "busyboxplus" | "alpine" | "bash" | "toybox" => (&[], &["sh"]),
        "debian" | "ubuntu" | "fedora" => (&[], &["bash"]),
        "curl" | "alpine-curl" => (&["/entrypoint.sh"], &["curl"]),
        "jessie-dnsutils" | "dnsutils" => (&[], &["sleep", "infinity"]),
        "dnstools" => (&[], &["sh"]),
        "netshoot" => (&[], &["bash"]),
        "http-echo" => (&["/http-echo"], &[]),
        "hello-app" => (&["/hello-app"], &[]),
        "whoami" if image.contains("traefik/") || image.contains("containous/") => (&["/whoami-server"], &[]),
        _ => return None,
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let mut files = vec![
        ("/etc/passwd".to_owned(), Bytes::from_static(b"root:x:0:0:root:/root:/bin/sh\n")),
        ("/etc/group".to_owned(), Bytes::from_static(b"root:x:0:\n")),
        ("/etc/nsswitch.conf".to_owned(), Bytes::from_static(b"hosts: files dns\n")),
        (
            "/etc/os-release".to_owned(),
            Bytes::from_static(b"NAME=\"Coracle\"\nID=coracle\nPRETTY_NAME=\"Coracle built-in image\"\n"),
        ),
    ];
    if entrypoint.contains(&"/entrypoint.sh") {
        files.push(("/etc/curlrc".to_owned(), Bytes::new()));
    }
    Some(Image {
        entrypoint: owned(entrypoint),
        cmd: owned(cmd),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        files,
    })
}

/// The last component of an image's name, without tag and digest: `agnhost` of `registry.k8s.io/e2e-test-images/agnhost:2.53`.
pub(super) fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_repository_whatever_its_registry_and_tag() {
        for image in [
            "busybox",
            "busybox:1.36",
            "docker.io/library/busybox",
            "localhost:5000/busybox:x",
            "busybox@sha256:0123456789abcdef",
        ] {
            assert_eq!(lookup(image).expect("built in").cmd, ["sh"], "{image}");
        }
        assert_eq!(lookup("registry.k8s.io/e2e-test-images/agnhost:2.53").expect("built in").entrypoint, ["/agnhost"]);
        assert_eq!(lookup("nginx:1.27"), None);
    }

    #[test]
    fn what_an_image_starts_is_a_built_in_program() {
        for image in ["agnhost", "pause", "busybox", "curlimages/curl", "tutum/dnsutils", "nicolaka/netshoot"] {
            let image = lookup(image).expect("built in");
            let name = image.entrypoint.iter().chain(&image.cmd).next().expect("a command");
            assert!(crate::programs::builtins().program(name).is_some(), "{name}");
        }
    }
}
