use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const LIST: &str =
    "# the edge\nnode-a 192.0.2.11\nNode-B 192.0.2.12,2001:db8::12 # rack 2\n\nnode-c 192.0.2.13\n";

const NODE: &str = "node-b";

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(content: impl AsRef<[u8]>, mode: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("berth-{}-{count}", std::process::id()));
        let options = File::options().create_new(true).write(true).mode(mode).open(&path);
        io::Write::write_all(&mut options.unwrap(), content.as_ref()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What comes of a list and a key, with these settings in place of the usual ones.
fn parsed(list: &str, key: &[u8], mode: u32, other: &[(&str, &str)]) -> Result<Fixed, Vec<String>> {
    let files = [Temporary::new(list, 0o644), Temporary::new(key, mode)];
    let [list, key] = [0, 1].map(|file: usize| files[file].path());
    let usual = [
        ("berth_members", list.as_str()),
        ("berth_key_file", &key),
        ("svc_enable", "false"),
        ("address", "192.0.2.1"),
    ];
    let given = usual.iter().chain(other);
    let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let parsed = fixed(&Settings::gather(given, []), Some(NODE)).map(Option::unwrap);
    parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(list: &str, other: &[(&str, &str)]) -> String {
    let told = parsed(list, &[7; 16], 0o600, other).unwrap_err();
    assert_eq!(told.len(), 1, "{told:#?}");
    told.into_iter().next().unwrap()
}

#[test]
fn members_a_key_and_addresses_make_a_cluster() {
    let other = [("address", "192.0.2.1,2001:db8::1"), ("port", "8443")];
    let fixed = parsed(LIST, b"a key with a line end\n", 0o640, &other).unwrap();
    let members: Vec<_> = fixed.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(members, ["node-a", "node-b", "node-c"]);
    assert_eq!(fixed.members[1].addresses.len(), 2);
    assert_eq!(fixed.key.octets(), b"a key with a line end");
    assert_eq!((fixed.addresses.len(), fixed.port), (2, 8443));
    assert_eq!(fixed.instance().name(), "192-0-2-1");
    let older = [("address", ""), ("vip_address", "2001:db8::9")];
    let older = parsed(LIST, &[7; 16], 0o600, &older).unwrap();
    assert_eq!((older.instance().name(), older.port), ("2001-db8--9", 6443));
}

#[test]
fn a_bad_line_is_named_with_its_number_and_what_is_accepted() {
    for (line, why) in [
        ("node-d", "line 6: 1 words"),
        ("node-d 192.0.2.14 192.0.2.15", "line 6: 3 words"),
        ("node_d 192.0.2.14", "line 6: \"node_d\" is no name of a node"),
        ("node-d 192.0.2", "line 6: \"192.0.2\" is no address of a host"),
        ("node-d 127.0.0.1", "line 6: \"127.0.0.1\" is no address of a host"),
        ("node-d 192.0.2.11", "line 6: address 192.0.2.11 stands there twice"),
        ("NODE-A 192.0.2.14", "line 6: member node-a stands there twice"),
    ] {
        let told = refused(&format!("{LIST}{line}\n"), &[]);
        assert!(told.starts_with("berth_members=") && told.contains(why), "{told}");
        assert!(told.contains(LINE), "{told}");
    }
    let wrong = (6..=17).map(|_| "node-d\n").collect::<String>();
    let told = refused(&format!("{LIST}{wrong}"), &[]);
    assert!(
        told.contains("line 6: 1 words; line 7: 1 words") && told.contains("line 15:"),
        "{told}"
    );
    assert!(told.contains("; 2 more; accepted") && !told.contains("line 16:"), "{told}");
    let two = LIST.lines().take(3).collect::<Vec<_>>().join("\n");
    assert!(refused(&two, &[]).contains("2 members; accepted are 3 or more"));
    let others = refused(&LIST.replace("Node-B", "node-x"), &[]);
    assert!(others.contains("has no member node-b, which is this node"), "{others}");
    assert!(refused(LIST, &[("berth_members", "/nowhere")]).contains("cannot be read"));
}

#[test]
fn a_key_that_is_short_or_that_others_may_read_is_refused() {
    let told = |key: &[u8], mode| parsed(LIST, key, mode, &[]).unwrap_err().remove(0);
    assert!(told(&[7; 15], 0o600).contains("it has 15 octets; accepted is a file of 16"));
    assert!(told(&[7; 16], 0o644).contains("its mode is 0644: others may use it"));
    assert!(refused(LIST, &[("berth_key_file", "")]).contains("needed beside berth_members"));
    assert!(!format!("{:?}", Key::new(vec![7; 16])).contains('['));
}

#[test]
fn a_list_of_members_is_never_used_beside_an_api() {
    for (name, value) in [
        ("svc_enable", "true"),
        ("svc_enable", ""),
        ("k8s_config_file", "/etc/kubernetes/admin.conf"),
        ("kubernetes_addr", "https://192.0.2.1:6443"),
        ("vip_leaderelection", "true"),
        ("svc_election", "true"),
        ("berth_election", "global"),
        ("svc_leasename", "lock"),
    ] {
        let told = refused(LIST, &[(name, value)]);
        assert!(told.starts_with("berth_members=") && told.contains(name), "{told}");
    }
    let alone = |name: &str, value: &str| {
        let settings = Settings::gather([(name.to_owned(), value.to_owned())], []);
        fixed(&settings, Some(NODE)).unwrap_err()[0].to_string()
    };
    assert!(alone("svc_enable", "false").contains("berth_members"));
    assert!(alone("berth_key_file", "/k").contains("berth_members"));
}

#[test]
fn without_a_cluster_what_is_announced_must_be_named() {
    for (text, why) in [
        ("", "\"\" is no address;"),
        ("vip.example.org", "\"vip.example.org\" is no address;"),
        ("0.0.0.0", "\"0.0.0.0\" is no address of a host;"),
        ("192.0.2.1,127.0.0.1", "\"127.0.0.1\" is a loopback address;"),
        ("192.0.2.1,ff02::1", "\"ff02::1\" is a multicast address;"),
        ("192.0.2.1,192.0.2.1", "\"192.0.2.1\" stands there twice;"),
        ("192.0.2.1,", "\"\" is no address;"),
    ] {
        let told = refused(LIST, &[("address", text)]);
        assert!(told.starts_with("address=") && told.contains("comma list"), "{told}");
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn an_address_of_a_member_is_none_to_announce() {
    let told = refused(LIST, &[("address", "192.0.2.1,2001:db8::12")]);
    assert!(told.contains("2001:db8::12 is that of member node-b"), "{told}");
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_a_name() {
    let marked = format!("\u{feff}{}", LIST.split_once('\n').unwrap().1);
    let fixed = parsed(&marked, b"sixteen octets and more", 0o600, &[]).unwrap();
    assert_eq!(fixed.members[0].name, "node-a");
}
