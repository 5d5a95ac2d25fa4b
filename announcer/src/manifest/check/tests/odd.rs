//! What no API server and no command line takes, and files that have nothing to look at.

use super::*;

/// What is said of a pod with this container.
fn of_container(container: &str) -> String {
    let text = format!(
        "kind: Pod\nmetadata: {{name: kube-vip}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: kube-vip\n    image: kube-vip\n{container}"
    );
    Report::of(&text).unwrap().to_string()
}

#[test]
fn what_the_api_server_or_a_command_line_does_not_take_is_refused() {
    for (container, told) in [
        ("    args: manager --arp\n", "refused        args: accepted is a list"),
        ("    env: {vip_arp: \"true\"}\n", "refused        env: accepted is a list"),
        (
            "    args: [manager, --services, \"false\"]\n",
            "refused        false: kube-vip passes over it, for a switch takes no word after it; write --services=false",
        ),
        (
            "    args: [manager, --interface]\n",
            "refused        vip_interface=\"\": its value is missing",
        ),
        (
            "    command: [sh, -c, /kube-vip manager]\n",
            "refused        \"sh\": Berth's image has no program but its own",
        ),
        ("    args: [start]\n", "refused        \"start\": no command of Berth"),
        (
            "    args: [manager, --arp, --arp=false]\n",
            "refused        vip_arp=\"false\": given twice: kube-vip goes by the last",
        ),
        (
            "    env: [{name: cp_enable, value: \"true\"}, {name: svc_enable, value: perhaps}]\n",
            "refused        svc_enable=\"perhaps\": accepted are true and false",
        ),
        (
            "    args: [manager, --members=/m, --keyFile=/k, --address=192.0.2.1]\n",
            "refused        berth_members=\"/m\": a list of members is never used beside an API server",
        ),
        (
            "    args: [manager, --peerPass, 1234]\n",
            "refused        bgp_peerpass (not shown): Kubernetes takes a text alone: write it in quotes",
        ),
        (
            "    env: [{name: svc_leasename, value: A_B}]\n",
            "refused        svc_leasename=\"A_B\": accepted is the name of a Lease",
        ),
        (
            "    env: [{name: lb_class_name, value: a b}]\n",
            "refused        lb_class_name=\"a b\": accepted is a class",
        ),
        (
            "    env: [{name: vip_nodename, value: a b}]\n",
            "refused        vip_nodename=\"a b\": accepted is the name of a Node",
        ),
    ] {
        let said = of_container(container);
        assert!(said.contains(told), "{container}{said}");
    }
    let long = of_container(&format!("    args: [manager, --{}]\n", "z".repeat(300)));
    assert!(
        long.contains("zz…\": no flag of kube-vip") && !long.contains(&"z".repeat(65)),
        "{long}"
    );
    let twice = of_container(
        "    env: [{name: vip_arp, value: \"false\"}, {name: vip_arp, value: \"true\"}]\n",
    );
    assert!(twice.contains("better         vip_arp=\"false\": given once more"), "{twice}");
    assert!(!twice.contains("all there is yet"), "{twice}");
}

#[test]
fn what_has_nothing_of_kube_vip_is_told() {
    for (text, told) in [
        ("", "it has nothing at all"),
        ("kind: Service\nmetadata: {name: web}\n", "it has Service web"),
        ("[1, 2]", "it has what is no object of Kubernetes"),
        ("a: [b\n", "line"),
        ("text", "it has what is no object"),
        (
            "kind: HelmChart\nmetadata: {name: kube-vip}\n",
            "it has HelmChart kube-vip; of values of a chart look at",
        ),
        ("kind: Pod\n{{- with .Values.x }}\n", "a template has to be rendered first"),
        (
            "kind: Role\nmetadata: {name: kube-vip}\nkind: Pod\n",
            "between two objects stands a line of its own, ---",
        ),
    ] {
        let why = Report::of(text).expect_err(text);
        assert!(why.contains(told), "{text}: {why}");
    }
}
