# SPDX-License-Identifier: MIT
# Work for perl: words counted in hashes, lists of structures, text taken apart and put together.
use strict;
use warnings;

srand 1;
my (%positions, @records);
for my $number (1 .. 150_000) {
    my $word = join '', map { chr(97 + int rand 8) } 1 .. 1 + int rand 12;
    push @{$positions{$word}}, $number;
    push @records, {word => $word, number => $number, parts => [split //, $word]};
    splice @records, int rand @records, 1 if $number % 3 == 0;
}
my $text = join ' ', sort map { $_->{word} } @records;
for my $round (1 .. 3) {
    my %count;
    $count{$_}++ for split / /, $text;
    my @common = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 9];
    $text =~ s/(\w+)/length $1 > 3 ? ucfirst $1 : "<$1>"/ge;
    print "@common ", length $text, "\n";
}
