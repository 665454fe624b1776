// Tries to reach the network by itself. Arguments: port of a listener on the host's loopback, name
// of an abstract socket of the host, path of a Unix socket of the host.
#include "probe.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static long reaches(const char *ip, int port, int type, int flags) {
    int fd = socket(AF_INET, type, 0);
    if (fd < 0) return -1;
    struct timeval second = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &to.sin_addr);
    long result = flags ? sendto(fd, "x", 1, flags, (void *)&to, sizeof to) : connect(fd, (void *)&to, sizeof to);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}
static long reaches6(const char *ip, int port) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, ip, &to.sin6_addr);
    return connect(fd, (void *)&to, sizeof to);
}
static long reaches_unix(const char *name, int abstract) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + abstract, name, sizeof to.sun_path - 1 - abstract);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name));
}
static long option(int level, int name, const void *value, int length) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return setsockopt(fd, level, name, value, length);
}
static const int one = 1;
static struct sock_filter nothing[] = {{BPF_RET | BPF_K, 0, 0, 0}};
static const struct sock_fprog program = {1, nothing};

TRY(metadata, "connect 169.254.169.254:80", reaches("169.254.169.254", 80, SOCK_STREAM, 0))
TRY(dns, "connect 8.8.8.8:53", reaches("8.8.8.8", 53, SOCK_STREAM, 0))
TRY(private_net, "connect 10.0.0.1:443", reaches("10.0.0.1", 443, SOCK_STREAM, 0))
TRY(any_address, "connect 0.0.0.0 to the host's listener", reaches("0.0.0.0", atoi(argument(0)), SOCK_STREAM, 0))
TRY(host_loopback, "connect the host's loopback", reaches("127.0.0.1", atoi(argument(0)), SOCK_STREAM, 0))
TRY(host_loopback2, "connect 127.0.0.2", reaches("127.0.0.2", atoi(argument(0)), SOCK_STREAM, 0))
TRY(host_loopback6, "connect ::1", reaches6("::1", atoi(argument(0))))
TRY(mapped6, "connect ::ffff:127.0.0.1", reaches6("::ffff:127.0.0.1", atoi(argument(0))))
TRY(global6, "connect 2001:4860:4860::8888", reaches6("2001:4860:4860::8888", 53))
TRY(fast_open, "sendto with MSG_FASTOPEN", reaches("127.0.0.1", atoi(argument(0)), SOCK_STREAM, MSG_FASTOPEN))
TRY(fast_open_out, "sendto with MSG_FASTOPEN outside", reaches("8.8.8.8", 53, SOCK_STREAM, MSG_FASTOPEN))
TRY(fast_open_option, "TCP_FASTOPEN", option(IPPROTO_TCP, TCP_FASTOPEN, &one, sizeof one))
TRY(fast_open_connect, "TCP_FASTOPEN_CONNECT", option(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one))
TRY(ulp, "TCP_ULP tls", option(IPPROTO_TCP, TCP_ULP, "tls", 3))
TRY(repair, "TCP_REPAIR", option(IPPROTO_TCP, TCP_REPAIR, &one, sizeof one))
TRY(congestion, "TCP_CONGESTION", option(IPPROTO_TCP, TCP_CONGESTION, "reno", 4))
TRY(attach_filter, "SO_ATTACH_FILTER", option(SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))
TRY(attach_bpf, "SO_ATTACH_BPF", option(SOL_SOCKET, SO_ATTACH_BPF, &one, sizeof one))
TRY(bind_device, "SO_BINDTODEVICE", option(SOL_SOCKET, SO_BINDTODEVICE, "eth0", 4))
TRY(mark, "SO_MARK", option(SOL_SOCKET, SO_MARK, &one, sizeof one))
TRY(zero_copy, "SO_ZEROCOPY", option(SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one))
TRY(iptables, "IPT_SO_SET_REPLACE", option(IPPROTO_IP, 64, &one, sizeof one))
TRY(original_dst, "SO_ORIGINAL_DST", option(IPPROTO_IP, 80, &one, sizeof one))
TRY(udp, "UDP to 8.8.8.8:53", reaches("8.8.8.8", 53, SOCK_DGRAM, MSG_NOSIGNAL))
TRY(udp_socket, "socket UDP", socket(AF_INET, SOCK_DGRAM, 0))
TRY(udp6_socket, "socket UDP over IPv6", socket(AF_INET6, SOCK_DGRAM, 0))
TRY(raw, "socket raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP))
TRY(ping, "socket ping", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP))
TRY(mptcp, "socket MPTCP", socket(AF_INET, SOCK_STREAM, 262))
TRY(sctp, "socket SCTP", socket(AF_INET, SOCK_STREAM, 132))
TRY(smc, "socket SMC", socket(AF_INET, SOCK_STREAM, 256))
TRY(udplite, "socket UDP-Lite", socket(AF_INET, SOCK_DGRAM, 136))
TRY(packet, "socket packet", socket(AF_PACKET, SOCK_RAW, 0))
TRY(netlink, "socket netlink", socket(AF_NETLINK, SOCK_RAW, 0))
TRY(vsock, "socket vsock", socket(AF_VSOCK, SOCK_STREAM, 0))
TRY(alg, "socket alg", socket(AF_ALG, SOCK_SEQPACKET, 0))
TRY(key, "socket key", socket(AF_KEY, SOCK_RAW, 2))
TRY(xdp, "socket xdp", socket(AF_XDP, SOCK_RAW, 0))
TRY(tipc, "socket tipc", socket(AF_TIPC, SOCK_STREAM, 0))
TRY(can, "socket can", socket(AF_CAN, SOCK_RAW, 1))
TRY(bluetooth, "socket bluetooth", socket(AF_BLUETOOTH, SOCK_RAW, 1))
PROBE(any_family, "any other family") {
    for (int family = 0; family < 64; family++)
        for (int type = 1; type < 6; type++)
            if (family != AF_UNIX && !((family == AF_INET || family == AF_INET6) && type == SOCK_STREAM) &&
                socket(family, type, 0) >= 0)
                return family * 100 + type;
    return refused(EACCES);
}
PROBE(any_pair, "socketpair of another family") {
    int pair[2];
    for (int family = 0; family < 64; family++)
        if (family != AF_UNIX && socketpair(family, SOCK_STREAM, 0, pair) >= 0) return family;
    return refused(EACCES);
}
TRY(abstract_socket, "abstract socket of the host", reaches_unix(argument(1), 1))
TRY(unix_socket, "Unix socket of the host by its path", reaches_unix(argument(2), 0))
TRY(docker, "/var/run/docker.sock", reaches_unix("/var/run/docker.sock", 0))
TRY(admin, "the platform's admin socket", reaches_unix("/run/cloister/admin.sock", 0))
PROBE(interface, "change an interface") {
    struct ifreq request = {.ifr_name = "lo"};
    return ioctl(socket(AF_INET, SOCK_STREAM, 0), 0x8914 /* SIOCSIFFLAGS */, &request);
}
PROBE(interfaces, "no interface but lo") {
    char buffer[4096];
    struct ifconf list = {.ifc_len = sizeof buffer, .ifc_buf = buffer};
    return ioctl(socket(AF_INET, SOCK_STREAM, 0), 0x8912 /* SIOCGIFCONF */, &list);
}
