//! The `/etc` of template `base`. All of it is ours except three things that are public and that programs need to be the
//! host's: the certificate bundle, the cache of library paths, and the links of `/etc/alternatives`.

use std::io::Read;
use std::path::Path;

use crate::limits::HOST_FILE;
use crate::template::{Entry, FIXED, Template, dir, file, link};

/// Name of the file that gets the host name, and of the one that names it.
pub(crate) const HOSTNAME: &str = "etc/hostname";
/// See [`HOSTNAME`].
pub(crate) const HOSTS: &str = "etc/hosts";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
user:x:1000:1000:user:/home/user:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
sudo:x:27:
www-data:x:33:
shadow:x:42:
utmp:x:43:
staff:x:50:
users:x:100:
user:x:1000:
nogroup:x:65534:
";

// Every command of an agent is a login shell, so this file is on its path: bash knows its user without a process.
const PROFILE: &str = r#"# Login shells.
if [ "${EUID:-$(id -u)}" -eq 0 ]; then
    PATH="/opt/sandhold/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
    PATH="/opt/sandhold/bin:$HOME/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
fi
export PATH
umask 022
if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -r /etc/bash.bashrc ]; then
    . /etc/bash.bashrc
fi
"#;

/// The name server of a sandbox.
pub(crate) const RESOLV_CONF: &str = "etc/resolv.conf";

/// What `/etc/hosts` begins with; the host name follows.
pub(crate) const LOCAL_HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 ";

/// The content of `/etc/resolv.conf`.
pub(crate) fn resolv_conf() -> String {
    format!("nameserver {}\n", crate::launcher::doors::NAME_SERVER)
}

const BASHRC: &str = r#"# Interactive shells.
[ -z "${PS1-}" ] && return
PS1='\u@\h:\w\$ '
"#;

/// `.profile` of the users.
pub(crate) const DOT_PROFILE: &str = r#"if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then
    . "$HOME/.bashrc"
fi
"#;

/// `.bashrc` of the users.
pub(crate) const DOT_BASHRC: &str = r#"case $- in *i*) ;; *) return ;; esac
alias ls='ls --color=auto'
alias ll='ls -l'
"#;

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

const PROTOCOLS: &str = "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\nipv6-icmp 58 IPv6-ICMP\n";

const SERVICES: &str = "\
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp mail
domain 53/tcp
domain 53/udp
http 80/tcp www
pop3 110/tcp
ntp 123/udp
imap2 143/tcp imap
ldap 389/tcp
https 443/tcp
https 443/udp
submission 587/tcp
ldaps 636/tcp
imaps 993/tcp
pop3s 995/tcp
mysql 3306/tcp
postgresql 5432/tcp
redis 6379/tcp
http-alt 8080/tcp
";

const MIME_TYPES: &str = "\
application/json json
application/pdf pdf
application/wasm wasm
application/zip zip
image/gif gif
image/jpeg jpeg jpg
image/png png
image/svg+xml svg
image/webp webp
text/css css
text/csv csv
text/html html htm
text/javascript js mjs
text/markdown md
text/plain txt log
text/xml xml
";

const OPENSSL: &str = "\
[req]
distinguished_name = req_distinguished_name
prompt = yes
x509_extensions = v3_ca
[req_distinguished_name]
commonName = Common Name
[v3_ca]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always,issuer
basicConstraints = critical,CA:true
";

/// Where distributions keep the certificate bundle.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the certificates stand, below `/etc`.
pub(crate) const BUNDLE: &str = "ssl/certs/ca-certificates.crt";

/// Adds `/etc` to a template, with certificates to trust beside the host's.
pub(crate) fn fill(template: &mut Template, trust: Option<&str>) {
    let Template { own, fixed, .. } = template;
    own.extend([
        dir("etc", 0o755),
        dir(FIXED, 0o755),
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
        // The launcher writes the name behind these two.
        file(HOSTNAME, ""),
        file(HOSTS, LOCAL_HOSTS),
        file(RESOLV_CONF, resolv_conf()),
        file("etc/environment", ""),
        file("etc/shells", "/bin/sh\n/bin/bash\n"),
        link("etc/mtab", "/proc/self/mounts"),
        link("etc/os-release", "../usr/lib/os-release"),
    ]);
    let mut shared = |name: &str, content: &str| {
        fixed.push(file(name, content));
        own.push(link(&format!("etc/{name}"), &format!("sandhold/{name}")));
    };
    shared("profile", PROFILE);
    shared("bash.bashrc", BASHRC);
    shared("nsswitch.conf", NSSWITCH);
    shared("protocols", PROTOCOLS);
    shared("services", SERVICES);
    shared("mime.types", MIME_TYPES);
    shared("host.conf", "multi on\n");
    fixed.extend([
        dir("empty", 0o555),
        dir("ssl", 0o755),
        dir("ssl/certs", 0o755),
        file("ssl/openssl.cnf", OPENSSL),
        dir("pki", 0o755),
        dir("pki/tls", 0o755),
        dir("pki/tls/certs", 0o755),
        link("pki/tls/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
        link("pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt"),
    ]);
    own.extend([link("etc/ssl", "sandhold/ssl"), link("etc/pki", "sandhold/pki")]);
    if let Some(bundle) = bundle(trust) {
        fixed.push(file(BUNDLE, bundle));
        fixed.push(link("ssl/cert.pem", "certs/ca-certificates.crt"));
        fixed.push(link("ssl/ca-bundle.pem", "certs/ca-certificates.crt"));
    }
    if let Some(cache) = host_file("/etc/ld.so.cache") {
        fixed.push(file("ld.so.cache", cache));
        own.push(link("etc/ld.so.cache", "sandhold/ld.so.cache"));
    }
    if Path::new("/usr/share/zoneinfo/Etc/UTC").exists() {
        own.push(link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"));
    }
    let links = alternatives();
    if !links.is_empty() {
        fixed.push(dir("alternatives", 0o755));
        fixed.extend(links);
        own.push(link("etc/alternatives", "sandhold/alternatives"));
    }
}

/// The certificates that the host trusts, and `trust`.
pub(crate) fn bundle(trust: Option<&str>) -> Option<Vec<u8>> {
    let host = BUNDLES.iter().find_map(|path| host_file(path));
    let Some(trust) = trust else { return host };
    let mut all = host.unwrap_or_default();
    if !all.is_empty() && !all.ends_with(b"\n") {
        all.push(b'\n');
    }
    all.extend(trust.as_bytes());
    Some(all)
}

/// A public file of the host, if it is there and of a sane size.
fn host_file(path: &str) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(HOST_FILE + 1)
        .read_to_end(&mut content)
        .ok()?;
    (!content.is_empty() && content.len() as u64 <= HOST_FILE).then_some(content)
}

/// The links of `/etc/alternatives` that lead to programs; nothing else of that folder.
fn alternatives() -> Vec<Entry> {
    let Ok(entries) = std::fs::read_dir("/etc/alternatives") else {
        return Vec::new();
    };
    let mut links: Vec<Entry> = entries
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let inside = ["/usr", "/bin", "/sbin", "/lib"]
                .iter()
                .any(|tree| target.starts_with(tree));
            let name = entry.file_name().into_string().ok()?;
            inside.then(|| link(&format!("alternatives/{name}"), &target.to_string_lossy()))
        })
        .collect();
    links.sort_by(|a, b| match (a, b) {
        (Entry::Link { path: a, .. }, Entry::Link { path: b, .. }) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    links
}
