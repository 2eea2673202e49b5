# SPDX-License-Identifier: MIT
# Work for perl: hashes, arrays of structures, regular expressions, growing strings, fork.
use strict; use warnings; use Digest::MD5 'md5_hex'; use List::Util 'sum';
srand(1); my (%h, @list);
for my $i (1 .. 150000) {
  my $key = join '', map { chr(97 + int rand 26) } 1 .. 1 + int rand 12;
  $h{$key} .= "$i," x (1 + $i % 4);
  push @list, [$i, $key, { n => $i }];
  splice @list, int rand @list, 1 if $i % 3 == 0;
}
print md5_hex(join ' ', map { "$_=$h{$_}" } sort keys %h), "\n", scalar @list, "\n";
print sum(map { $_->[2]{n} } @list), "\n";
my $text = join ' ', sort map { $_->[1] } @list;
my $n = () = $text =~ /\b(\w)\w*\1\b/g; print "$n\n";
$text =~ s/(\w+)/length($1) > 3 ? ucfirst $1 : "<$1>"/ge; print md5_hex($text), "\n";
my $big = ''; $big .= 'x' x 1000 for 1 .. 20000; print length $big, "\n";
for my $round (1 .. 3) { my $pid = fork; if (!$pid) { my @a = map { "$_" x 10 } 1 .. 20000; exit(@a == 20000 ? 4 : 5) }
  waitpid $pid, 0; print $? >> 8, "\n" }
